"""Waiting until a classifier has settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ocelli_client.api import get_classifier
from ocelli_client.calls import Pause, Procedure
from ocelli_client.cards import Card, Details
from ocelli_client.errors import WaitTimeoutError
from ocelli_client.retries import INTERRUPTIONS, Patience

POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Wait:
    """How long, until when, and what is called meanwhile."""

    timeout_seconds: float | None = None
    on_change: Callable[[Details], None] | None = None
    on_interruption: Callable[[str], None] | None = None
    """Called with a sentence while the gateway does not answer."""
    until: Callable[[Card], bool] = lambda card: has_settled(card)


def has_settled(card: Card) -> bool:
    """Nothing more happens without a person: it is ready or failed, waits for approval, or is suspended."""
    return card.status in ("ready", "failed") or card.awaits_approval is not None or card.suspended


def wait(classifier_id: str, options: Wait) -> Procedure[Details]:
    """The classifier once it has settled. A gateway that does not answer for a while is asked again."""
    end = None if options.timeout_seconds is None else time.monotonic() + options.timeout_seconds
    seen: Details | None = None
    patience = Patience()
    while True:
        pause = POLL_SECONDS
        try:
            details = yield from get_classifier(classifier_id)
        except INTERRUPTIONS as error:
            found = patience.find_pause(error)
            if found is None:
                raise
            pause = found
            if options.on_interruption is not None:
                options.on_interruption(f"{error}; trying again in {pause:g} s")
        else:
            patience.report_success()
            if options.on_change is not None and (seen is None or details.raw != seen.raw):
                options.on_change(details)
            seen = details
            if options.until(details):
                return details
        if end is not None and time.monotonic() + pause > end:
            state = "unknown" if seen is None else seen.status
            raise WaitTimeoutError(
                f"Classifier {classifier_id} is {state}: timed out after {options.timeout_seconds:g} s; the training goes on"
            )
        yield Pause(seconds=pause)
