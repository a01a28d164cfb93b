"""The multipart reader: it reads complete messages in any pieces, and raises only its own error for other input."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocelli_gateway.multipart import PartHead, parse_boundary, parse_part_head, read_parts
from ocelli_gateway.refusals import GatewayError, InputError
from tests.gateway_harness.raw_http import multipart


class Collected:
    def __init__(self, head: PartHead) -> None:
        self.head = head
        self.data = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        self.data += data

    async def close(self) -> None:
        self.closed = True


def read(chunks: Sequence[bytes], boundary: bytes = b"BOUNDARY") -> list[Collected]:
    sinks: list[Collected] = []

    async def open_sink(head: PartHead) -> Collected:
        sinks.append(Collected(head))
        return sinks[-1]

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    asyncio.run(read_parts(stream(), boundary, open_sink))
    return sinks


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


BYTES = st.lists(st.sampled_from([b"\r\n", b"--", b"BOUNDARY", b"\r", b"\n", b"-", b"x", b"\x00", b"\xff"]), max_size=12).map(
    b"".join
)


@given(
    parts=st.lists(BYTES.filter(lambda data: b"\r\n--BOUNDARY" not in b"\r\n" + data), max_size=4),
    cuts=st.lists(st.integers(0, 500), max_size=8),
)
def test_parts_are_complete_for_any_split_of_the_message(parts: list[bytes], cuts: list[int]) -> None:
    message = multipart([(f'Content-Disposition: form-data; name="p{index}"', data) for index, data in enumerate(parts)])
    read_back = read(pieces(message, cuts))
    assert [(sink.head.name, sink.data, sink.closed) for sink in read_back] == [
        (f"p{index}", data, True) for index, data in enumerate(parts)
    ]


@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_are_parts_or_a_multipart_error(data: bytes, cuts: list[int]) -> None:
    try:
        read(pieces(b"--BOUNDARY\r\n" + data, cuts))
    except GatewayError:
        pass


@given(disposition=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_disposition_is_a_head_or_a_multipart_error(disposition: bytes) -> None:
    try:
        head = parse_part_head(b"form-data; name=x" + disposition)
    except GatewayError:
        return
    (head.name + (head.filename or "")).encode("utf-8")


@given(content_type=st.text(max_size=100))
def test_any_content_type_is_a_boundary_or_a_multipart_error(content_type: str) -> None:
    try:
        assert parse_boundary("multipart/form-data;" + content_type)
    except GatewayError:
        pass


@pytest.mark.parametrize("missing", range(1, 14))
def test_message_without_its_end_is_an_error(missing: int) -> None:
    message = multipart([('Content-Disposition: form-data; name="a"', b"data")])
    # The line break after the last boundary is optional.
    with pytest.raises(InputError, match="cut off"):
        read([message[: -2 - missing]])


@pytest.mark.parametrize("filling", [" ", ";", "; ", ";x", ";x=", ';x="', '" ', "\\"])
def test_parsing_a_header_takes_linear_time(filling: str) -> None:
    # A header can have 64 KB, and parsing it blocks everything else.
    started = time.monotonic()
    assert parse_boundary("multipart/form-data; boundary=x;" + filling * (60_000 // len(filling))) == b"x"
    assert time.monotonic() - started < 2


def test_parsing_a_header_of_many_parameters_is_fast() -> None:
    disposition = b'form-data; name="a"' + b';x="y' * 1500
    with pytest.raises(InputError):
        parse_part_head(b"attachment" + disposition)
    assert parse_part_head(disposition).name == "a"
