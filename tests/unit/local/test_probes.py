"""Thresholds of probes, and the results of single probes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ocelli_local.process_node.probes import ProbeResult, ProbeTarget, Thresholds, run_action


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ([True], [None]),
        ([True, True], [None, True]),
        ([False, False, False], [None, None, False]),
        ([False, False, True, False, True, True], [None, None, None, None, None, True]),
    ],
)
def test_verdict_needs_enough_results_in_a_row(results: list[bool], verdicts: list[bool | None]) -> None:
    thresholds = Thresholds({"successThreshold": 2, "failureThreshold": 3})
    assert [thresholds.take(result) for result in results] == verdicts


def probe(action: dict[str, object], *, exit_code: int = 0) -> ProbeResult:
    async def run_command(argv: Sequence[str]) -> tuple[int, str]:
        if argv == ["hang"]:
            await asyncio.Event().wait()
        return exit_code, "said"

    target = ProbeTarget(address="127.0.0.1", ports={}, run_command=run_command)
    return asyncio.run(run_action(action, target, timeout_seconds=0.05))


def test_command_that_fails_is_quoted() -> None:
    assert probe({"exec": {"command": ["x"]}}, exit_code=1) == ProbeResult(success=False, message="said")


def test_probe_without_an_answer_fails_in_time() -> None:
    assert not probe({"exec": {"command": ["hang"]}}).success


def test_closed_port_fails() -> None:
    assert not probe({"tcpSocket": {"port": 1}}).success


def test_unknown_port_name_fails() -> None:
    assert not probe({"httpGet": {"port": "http"}}).success
