"""What a signal does while a training can, or cannot, save where it is."""

from __future__ import annotations

import signal

import pytest

from ocelli_training.stop_request import StopRequest


@pytest.fixture
def ended() -> list[int]:
    return []


@pytest.fixture
def stop(ended: list[int]) -> StopRequest:
    return StopRequest(ended.append)


def test_a_signal_ends_a_training_that_cannot_be_resumed(stop: StopRequest, ended: list[int]) -> None:
    stop.receive(signal.SIGTERM)
    assert ended == [signal.SIGTERM]


def test_a_resumable_training_ends_after_it_has_saved(stop: StopRequest, ended: list[int]) -> None:
    with stop.resumable():
        stop.receive(signal.SIGTERM)
        assert (stop.requested, ended) == (True, [])
        stop.end()
        assert ended == [signal.SIGTERM]


def test_what_was_requested_meanwhile_ends_the_training_when_it_is_no_longer_resumable(
    stop: StopRequest, ended: list[int]
) -> None:
    with stop.resumable():
        stop.receive(signal.SIGTERM)
    assert ended == [signal.SIGTERM]


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
def test_an_interrupt_or_a_second_signal_does_not_wait(
    stop: StopRequest, ended: list[int], signals: tuple[signal.Signals, ...]
) -> None:
    with stop.resumable():
        for number in signals:
            stop.receive(number)
        assert ended == [signals[-1]]
        stop._requested = None


def test_without_a_signal_nothing_ends(stop: StopRequest, ended: list[int]) -> None:
    with stop.resumable():
        stop.end()
    assert ended == []
