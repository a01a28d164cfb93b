"""The kubelet's query parameters for logs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ocelli_local.process_node.container_log import LogQuery
from ocelli_local.process_node.log_server import parse_log_query

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "query"),
    [
        ({}, LogQuery()),
        ({"follow": "true", "timestamps": "true"}, LogQuery(follow=True, timestamps=True)),
        ({"tailLines": "3", "limitBytes": "10"}, LogQuery(tail_lines=3, limit_bytes=10)),
        ({"sinceSeconds": "5"}, LogQuery(since=datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC))),
        ({"sinceTime": "2026-01-01T00:00:00Z"}, LogQuery(since=datetime(2026, 1, 1, tzinfo=UTC))),
    ],
)
def test_parameters_become_a_query(values: dict[str, str], query: LogQuery) -> None:
    assert parse_log_query(values, NOW) == query


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_log_query({"tailLines": "many"}, NOW)
