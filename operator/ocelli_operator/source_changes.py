"""What polls of the sources mean for a Classifier. Pure."""

from __future__ import annotations

from dataclasses import replace

from ocelli_api.classifier_status import ClassifierStatus, ObservedSources
from ocelli_api.conditions import ConditionType
from ocelli_api.polled_sources import find_seen_digest
from ocelli_api.revision import current_revision
from ocelli_api.times import format_time
from ocelli_operator.observed import Observed
from ocelli_operator.status import Occurrence


def plan_observed_sources(observed: Observed) -> ObservedSources | None:
    """What status should say about the polls. It changes only when a poll saw something else.

    Without `spec.pollInterval`, what was seen last stays: it is part of the revision, and to stop polling must neither train
    again nor return to an earlier revision.
    """
    classifier, poll = observed.classifier, observed.source_poll
    seen = classifier.status.observed_sources
    if classifier.spec.poll_interval is None:
        is_used = find_seen_digest(classifier) is not None
        return replace(seen, fault=None) if seen is not None and is_used else None
    if poll is None:
        return seen
    known = seen if seen is not None and seen.addresses == poll.addresses else None
    digest, changed_at = (None, None) if known is None else (known.digest, known.changed_at)
    if poll.digest is not None and poll.digest != digest and not _is_in_progress(observed):
        digest, changed_at = poll.digest, format_time(observed.now, timespec="seconds")
    return ObservedSources(addresses=poll.addresses, digest=digest, changed_at=changed_at, fault=poll.fault)


def _is_in_progress(observed: Observed) -> bool:
    """Whether the current revision is on its way: its data is being read, it is trained or rolled out. A change takes effect
    afterwards. Otherwise sources that change often would replace every revision before it serves."""
    classifier, current = observed.classifier, current_revision(observed.classifier)
    status = classifier.status
    if status.served_revision == current or not status.is_true(ConditionType.RECONCILING):
        return False
    has_job = any(job.identity.revision == current and not job.identity.deleting for job in observed.jobs)
    return has_job or any(entry.revision == current for entry in status.history)


def find_source_occurrences(before: ClassifierStatus, after: ClassifierStatus) -> tuple[Occurrence, ...]:
    """The Events of a status write about polls."""
    old, new = before.observed_sources, after.observed_sources
    found: list[Occurrence] = []
    if new is None:
        return ()
    known = old if old is not None and old.addresses == new.addresses else None
    if known is not None and None not in (known.digest, new.digest) and known.digest != new.digest:
        note = "the bytes behind spec's sources have changed, according to their ETags: they are trained again"
        found.append(Occurrence(type="Normal", reason="SourcesChanged", action="Poll", note=note))
    if new.fault is not None and (known is None or known.fault != new.fault):
        note = f"the poll of the sources did not see all of them: {new.fault}"
        found.append(Occurrence(type="Warning", reason="SourcesNotPolled", action="Poll", note=note))
    return tuple(found)
