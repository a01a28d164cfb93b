"""When a container may start again."""

from __future__ import annotations

from ocelli_local.process_node.backoff import RestartBackoff, RestartDelays


def test_first_restart_is_immediate_then_delays_double_up_to_the_limit() -> None:
    delays = RestartDelays(RestartBackoff())
    assert [delays.next_delay(ran_for_seconds=1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_long_run_counts_as_recovered() -> None:
    delays = RestartDelays(RestartBackoff())
    for _ in range(4):
        delays.next_delay(ran_for_seconds=1)
    assert delays.next_delay(ran_for_seconds=600) == 0


def test_limit_below_the_initial_delay_is_kept() -> None:
    delays = RestartDelays(RestartBackoff(initial_seconds=0.5, limit_seconds=0.5))
    assert [delays.next_delay(ran_for_seconds=1) for _ in range(3)] == [0, 0.5, 0.5]
