"""Answers to failures of the gateway's dependencies."""

from __future__ import annotations

import errno

import pytest

from ocelli_gateway.errors import answer_error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The service cannot store the upload at the moment; try again."),
        (TimeoutError(), "The request timed out; try again."),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "A connection that the request needs was closed; try again."),
    ],
)
def test_answer_says_what_failed(error: OSError, message: str) -> None:
    answer = answer_error(error)

    assert answer is not None
    assert (answer.status, answer.message) == (503, message)
