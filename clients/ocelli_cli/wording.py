"""How values are written for people."""

from __future__ import annotations

from datetime import UTC, datetime

from ocelli_client import Accuracy, Card
from ocelli_client.texts import count


def describe_status(card: Card) -> str:
    """The status, and how far a training is."""
    if card.suspended:
        return f"{card.status} (suspended)"
    if card.awaits_approval:
        return f"{card.status} (waits for approval of {card.awaits_approval})"
    if card.progress is not None and card.status != "failed":
        return f"{card.status} {card.progress.percent} % ({card.progress.stage})"
    return card.status


def describe_accuracy(accuracy: Accuracy | None) -> str:
    """`95.0 % (87.1 to 96.4 %, 120 images)`."""
    if accuracy is None:
        return "-"
    parts = []
    if accuracy.lower is not None and accuracy.upper is not None:
        parts.append(f"{100 * accuracy.lower:.1f} to {percent(accuracy.upper)}")
    if accuracy.images is not None:
        parts.append(count(accuracy.images, "image"))
    more = f" ({', '.join(parts)})" if parts else ""
    return percent(accuracy.value) + more


def percent(share: float) -> str:
    """A share as `95.0 %`."""
    return f"{100 * share:.1f} %"


def describe_time(time: str | None) -> str:
    """How long ago, as kubectl writes it: `5m`."""
    if time is None:
        return "-"
    try:
        seconds = int((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())
    except (ValueError, TypeError):
        return time
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) // unit}{name}"
    return f"{seconds // 86_400}d"


def describe_class(name: str | None) -> str:
    """A class, or that it is none of the classes."""
    return "(none of the classes)" if name is None else name
