"""The termination message of the trainer's container."""

from __future__ import annotations

import logging
from pathlib import Path

from ocelli_api.outcome import Outcome

logger = logging.getLogger(__name__)


def write_termination_message(path: Path, outcome: Outcome) -> None:
    """Write the outcome where Kubernetes reads it."""
    try:
        path.write_text(outcome.to_termination_message(), encoding="utf-8")
    except OSError as error:
        logger.warning("termination_message.not_written", extra={"path": path, "error": str(error)})
