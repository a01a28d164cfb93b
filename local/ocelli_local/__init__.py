"""A local cluster for development and tests: a real Kubernetes control plane, and a node that runs Pods as processes.

This is a stand-alone tool that knows nothing about Ocelli. It uses the standard library, aiohttp, PyYAML and cryptography,
and imports no other package of this repository.

In an event loop, the cluster ends with the block (and with the process, however that ends). The thread must live as long
as the cluster, because the kernel ends the cluster's processes with the thread that started them:

    async with LocalCluster(ClusterOptions(state_dir=Path("state"), durable=False)) as cluster:     # about 4 s
        access = cluster.access                                        # as administrator
        access.kubeconfig                                              # Path
        await access.apply("definition.yaml")                          # dicts, files, folders; server-side apply
        await access.get("v1", "Pod", "one", namespace="team-a")       # dict, or None
        await access.service_account_kubeconfig("team-a", "robot")     # Path
        await access.kubectl("get", "pods", "-A")                      # CompletedProcess with text
        await access.wait_for("the Pod exists", coroutine_function, timeout_seconds=30)

For functions that block, such as most tests, the cluster runs in a process of its own:

    process = ClusterProcess(Path("state"), ["--not-durable"])         # arguments of `ocelli-local up`
    cluster = process.start().open()                                   # a SyncClusterAccess: the same, without await
    cluster.kubectl("get", "pods", "-A")
    process.stop()

For pytest, `pytest_plugins = ["ocelli_local.pytest_plugin"]` provides the fixtures `local_cluster` (a SyncClusterAccess,
one for each pytest process) and `namespace` (a new namespace for each test).
"""

from ocelli_local.access import ClusterAccess, ClusterAccessError, SyncClusterAccess
from ocelli_local.cluster import ClusterError, ClusterOptions, LocalCluster
from ocelli_local.cluster_process import ClusterDescription, ClusterProcess

__all__ = [
    "ClusterAccess",
    "ClusterAccessError",
    "ClusterDescription",
    "ClusterError",
    "ClusterOptions",
    "ClusterProcess",
    "LocalCluster",
    "SyncClusterAccess",
]
