"""The form of digests."""

import pytest

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.digests import is_digest


def test_a_sha256_is_a_digest() -> None:
    assert is_digest(sha256_hex(b"bytes"))


@pytest.mark.parametrize(
    "value",
    ["", "b5" * 31, "b5" * 33, "B5" * 32, "g" * 64, "b5" * 32 + "\n", "\uff15" * 64, None, 64, ["b5" * 32]],
    ids=["empty", "short", "long", "upper case", "not hex", "line end", "wide digits", "null", "number", "list"],
)
def test_everything_else_is_not(value: object) -> None:
    assert not is_digest(value)
