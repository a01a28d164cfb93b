"""The local cluster: a real Kubernetes control plane and a node that runs Pods as processes. For development and tests.

In an event loop; the cluster ends with the block (and with the process, however that ends). The thread must live as
long as the cluster, because the kernel ends the cluster's processes with the thread that started them:

    async with LocalCluster(ClusterOptions(state_dir=Path("state"), durable=False)) as cluster:     # about 4 s
        cluster.kubeconfig                                             # Path, administrator
        await cluster.apply("crds/classifier.yaml")                    # dicts, files, folders; server-side apply
        await cluster.get("v1", "Pod", "one", namespace="team-a")      # dict, or None
        await cluster.service_account_kubeconfig("team-a", "robot")    # Path
        await cluster.kubectl("get", "pods", "-A")                     # CompletedProcess with text
        await cluster.wait_for("the Pod is there", coroutine_function, timeout_seconds=30)

For functions that may block, as most tests: the cluster runs in a process of its own.

    process = ClusterProcess(Path("state"), ["--not-durable"])         # arguments of `ocelli-local up`
    cluster = process.start().open()                                   # a SyncClusterAccess: the same methods, plain
    cluster.kubectl("get", "pods", "-A")
    process.stop()

For pytest: `pytest_plugins = ["ocelli_local.pytest_plugin"]` gives `local_cluster` (a SyncClusterAccess, one for each
pytest process) and `namespace` (a name, fresh for each test).
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
