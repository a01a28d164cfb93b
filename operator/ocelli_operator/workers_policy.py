"""The NetworkPolicy of workers that train together. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ocelli_operator.actions import Action, ApplyChild, delete_child
from ocelli_operator.children import is_as_desired, with_hash
from ocelli_operator.manifests.metadata import hash_annotation, workers_policy_name
from ocelli_operator.manifests.workers import build_workers_policy
from ocelli_operator.observed import ChildKind
from ocelli_operator.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class PolicyStep:
    """What to do about the NetworkPolicy of workers."""

    message: str = ""
    """Why the training has to wait for it."""
    actions: tuple[Action, ...] = ()


def plan_workers_policy(snapshot: Snapshot) -> PolicyStep:
    """It exists before the first worker, and is removed where a later training has one worker."""
    name, kind, training = workers_policy_name(snapshot.owner.name), ChildKind.NETWORK_POLICY, snapshot.classifier.spec.training
    found = next((item for item in snapshot.observed.network_policies if item.identity.name == name), None)
    if training.workers == 1 or snapshot.settings.network_peers is None:
        return PolicyStep(
            actions=() if found is None else delete_child(kind, found.identity, "no training has several workers")
        )
    conflict = snapshot.name_conflicts.get((kind, name))
    if conflict is not None:
        return PolicyStep(message=conflict)
    desired = with_hash(build_workers_policy(snapshot.owner))
    hash_ = hash_annotation(desired)
    if found is not None and found.identity.deleting:
        return PolicyStep(message=f"{kind} {name} is being deleted; it is recreated after that")
    if found is not None and is_as_desired(snapshot, desired, found):
        return PolicyStep()
    refusal = snapshot.observed.memory.refusals.get(hash_)
    if refusal is not None and refusal.invalid:
        # Sending it again would be refused again, at once.
        return PolicyStep(message=f"{kind} {name}: the API server rejects it as invalid: {refusal.message}; report this error")
    message = f"{kind} {name} is created before the workers" if refusal is None else f"{kind} {name} {refusal.message}"
    uid = None if found is None else found.identity.uid
    return PolicyStep(message=message, actions=(ApplyChild(kind=kind, manifest=desired, uid=uid),))
