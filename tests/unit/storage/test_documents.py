"""Documents are read up to the size of the largest valid one."""

from __future__ import annotations

import json

import pytest

from ocelli_api.classifier import parse_spec
from ocelli_api.revision import definition
from ocelli_storage.documents import LIMITS_BYTES, parse_document
from ocelli_storage.layout import DEFINITION

pytestmark = pytest.mark.slow

ETCD_LIMIT_BYTES = 1536 * 1024


def test_the_densest_definition_that_the_cluster_accepts_can_be_read() -> None:
    shortest = {"url": "file:///", "round": 2}
    spec = {"classes": [{"name": f"c{number}", "examples": [shortest] * 1000} for number in range(57)]}
    assert len(json.dumps(spec, separators=(",", ":"))) > ETCD_LIMIT_BYTES
    # The form that the operator writes.
    assert len(json.dumps(definition(parse_spec(spec)), ensure_ascii=False, indent=1)) < LIMITS_BYTES[DEFINITION]


@pytest.mark.parametrize("content", [b"", b"\xff", b"7", b"[]", b"[" * 50_000, b'{"a":' * 50_000])
def test_a_document_that_is_not_an_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_document(content)
