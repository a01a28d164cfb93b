"""Which kinds of the Kubernetes API Ocelli touches, and the paths at which they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from ocelli_api.classifier import GROUP, KIND, PLURAL, VERSION


class ObjectKey(NamedTuple):
    """Namespace and name of an object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One kind."""

    group: str
    """API group; empty for the core group."""
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As manifests name group and version."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of all objects of a namespace (of every namespace: None), of one object, or of its subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(quote(part, safe="") for part in parts)


CLASSIFIERS = Resource(group=GROUP, version=VERSION, plural=PLURAL, kind=KIND)
NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
"""They lie in no namespace: the namespace of their keys is empty."""
PODS = Resource(group="", version="v1", plural="pods", kind="Pod")
SECRETS = Resource(group="", version="v1", plural="secrets", kind="Secret")
SERVICES = Resource(group="", version="v1", plural="services", kind="Service")
EVENTS = Resource(group="events.k8s.io", version="v1", plural="events", kind="Event")
JOBS = Resource(group="batch", version="v1", plural="jobs", kind="Job")
DEPLOYMENTS = Resource(group="apps", version="v1", plural="deployments", kind="Deployment")
AUTOSCALERS = Resource(group="autoscaling", version="v2", plural="horizontalpodautoscalers", kind="HorizontalPodAutoscaler")
DISRUPTION_BUDGETS = Resource(group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget")
NETWORK_POLICIES = Resource(group="networking.k8s.io", version="v1", plural="networkpolicies", kind="NetworkPolicy")
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
TOKEN_REVIEWS = Resource(group="authentication.k8s.io", version="v1", plural="tokenreviews", kind="TokenReview")
