"""What faults of the gateway's surroundings are told as."""

from __future__ import annotations

import errno

import pytest

from ocelli_gateway.errors import translate_error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The service cannot keep the upload now; try again."),
        (TimeoutError(), "The request takes too long now; try again."),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "A connection that the request needs broke off; try again."),
    ],
)
def test_a_fault_is_told_as_what_happened(error: OSError, told: str) -> None:
    refusal = translate_error(error)

    assert refusal is not None
    assert (refusal.status, refusal.message) == (503, told)
