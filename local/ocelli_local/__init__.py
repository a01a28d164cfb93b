"""The local cluster: a real Kubernetes control plane and a node that runs Pods as processes. For development and tests.

In an event loop, the cluster ends with the block (and with the process, however that ends):

    async with LocalCluster(ClusterOptions(state_dir=Path("state"), durable=False)) as cluster:
        cluster.kubeconfig                                            # Path, administrator
        await cluster.access.apply("crds/classifier.yaml")            # dicts, files or folders; server-side apply
        await cluster.access.service_account_kubeconfig("team-a", "default")      # Path
        await cluster.access.kubectl("get", "pods", "-A")             # CompletedProcess, text
        await cluster.access.wait_for("pod is there", condition)      # polls a function or coroutine function
"""

from ocelli_local.access import ClusterAccess, ClusterAccessError, SyncClusterAccess
from ocelli_local.cluster import ClusterError, ClusterOptions, LocalCluster

__all__ = [
    "ClusterAccess",
    "ClusterAccessError",
    "ClusterError",
    "ClusterOptions",
    "LocalCluster",
    "SyncClusterAccess",
]
