"""The kinds of the Kubernetes API that Ocelli uses, and their URL paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import quote

from ocelli_api.classifier import GROUP, KIND, PLURAL, VERSION, Manifest


class ObjectKey(NamedTuple):
    """Namespace and name of an object; the namespace is empty for cluster-scoped kinds."""

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
        """Group and version, as in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of all objects of a namespace (None: of every namespace), of one object, or of its subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(quote(part, safe="") for part in parts)


@dataclass(frozen=True, kw_only=True)
class ObjectReference:
    """One object in one version."""

    resource: Resource
    key: ObjectKey
    uid: str
    resource_version: str

    @classmethod
    def of(cls, resource: Resource, manifest: Manifest) -> Self:
        metadata = manifest["metadata"]
        return cls(
            resource=resource,
            key=ObjectKey(metadata.get("namespace", ""), metadata["name"]),
            uid=metadata.get("uid", ""),
            resource_version=metadata["resourceVersion"],
        )


CLASSIFIERS = Resource(group=GROUP, version=VERSION, plural=PLURAL, kind=KIND)
NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
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
