"""Mutated valid requests: a seeded fuzzer changes their bytes, their structure and their headers, and sends them."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable

from tests.gateway_harness.images import build_zip, examples, plain, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, multipart
from tests.gateway_harness.v3_client import basic
from tests.integration.gateway.gateway_process import PASSWORD, USER

QUERY = "?version=2018-03-19"
EVIL_NAMES = ("../../../../tmp/escaped.png", "/etc/passwd.png", "..\\x.png", "a\0b.png", "\u202egnp.x", "C:\\x.png", "x" * 5000)
EVIL_TEXTS = (
    "",
    "\0",
    "'",
    '"',
    "%00",
    "{}",
    "[]",
    "NaN",
    "-1",
    "1e999",
    "\ud7ff",
    "../..",
    "a" * 70_000,
    "😀" * 50,
    "\r\nX: y",
)
HEADERS = (
    "Accept-Language: de;q=0.5, *",
    "X-Watson-Metadata: customer_id=a;b",
    "X-Watson-Learning-Opt-Out: 1",
    "Expect: 100-continue",
    "Transfer-Encoding: chunked",
    "Content-Encoding: gzip",
    "Range: bytes=0-1",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Content-Type: text/plain",
    "X: " + "y" * 9000,
)

AT_ONCE = 8

Request = tuple[str, str, list[str], bytes]
"""Method, target, headers, body."""


class Mutator:
    """Draws requests; the same seed draws the same ones."""

    def __init__(self, seed: int, authorization: str = basic(USER, PASSWORD)) -> None:
        self._random = random.Random(seed)
        self._authorization = authorization
        jpeg = plain((9, 8, 7), format_name="JPEG")
        self._images = [png(), jpeg, plain((3,), mode="P", format_name="GIF"), plain((9, 8, 7), format_name="TIFF")]
        self._zips = [
            examples(1),
            build_zip({name.replace("\0", "_"): png(1, (12, 12)) for name in EVIL_NAMES[:4]}),
            build_zip({"deep/" * 40 + "a.png": png(), "__MACOSX/x": b"x"}),
        ]
        self._draws: list[tuple[int, Callable[[], Request]]] = [
            (5, self._classify),
            (2, self._create),
            (1, self._retrain),
            (2, self._address),
            (1, self._token),
            (1, self._parameters),
        ]

    def draw(self) -> bytes:
        """The bytes of one request."""
        weights = [weight for weight, _ in self._draws]
        (_, build) = self._random.choices(self._draws, weights)[0]
        method, target, headers, body = build()
        if self._random.random() < 0.15:
            headers.append(self._random.choice(HEADERS))
        body = self._mutated(body, 0.3)
        length = len(body) + self._random.choice([0] * 12 + [1, -1, 100_000])
        lines = [f"{method} {target} HTTP/1.1", "Host: gateway", f"Authorization: {self._authorization}", *headers]
        if body or method == "POST":
            lines.append(f"Content-Length: {max(0, length)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass")
        return self._mutated(head, 0.05) + body

    def _mutated(self, data: bytes, probability: float) -> bytes:
        if not data or self._random.random() > probability:
            return data
        changed = bytearray(data)
        for _ in range(self._random.choice([1, 1, 2, 8, 64])):
            place = self._random.randrange(len(changed))
            match self._random.randrange(5):
                case 0:
                    changed[place] = self._random.randrange(256)
                case 1:
                    changed[place] ^= 1 << self._random.randrange(8)
                case 2:
                    del changed[place : place + self._random.randrange(1, 50)]
                case 3:
                    changed[place:place] = self._random.randbytes(self._random.randrange(1, 50))
                case _:
                    changed[place:place] = changed[place : place + self._random.randrange(1, 300)]
            if not changed:
                break
        if self._random.random() < 0.1:
            del changed[self._random.randrange(len(changed) + 1) :]
        return bytes(changed)

    def _file(self) -> bytes:
        return self._mutated(self._random.choice(self._images + self._zips), 0.7)

    def _form(self, parts: list[tuple[str, bytes]]) -> tuple[list[str], bytes]:
        self._random.shuffle(parts)
        encoded = []
        for name, data in parts:
            file_name = self._random.choice([*EVIL_NAMES, "a.png", "", None])
            shown = "" if file_name is None else f'; filename="{file_name}"'
            encoded.append((f'Content-Disposition: form-data; name="{name}"{shown}', data))
        body = multipart(encoded, closed=self._random.random() > 0.02)
        return [f"Content-Type: {MULTIPART_TYPE}"], body

    def _text(self, *good: str) -> bytes:
        return self._random.choice([*good, *good, *EVIL_TEXTS]).encode("utf-8", "replace")

    def _classify(self) -> Request:
        parts = [("images_file", self._file()) for _ in range(self._random.choice([0, 1, 1, 1, 3]))]
        for name, good in (
            ("threshold", ("0.5", "0", ".1")),
            ("owners", ("me", "IBM", "me,IBM")),
            ("classifier_ids", ("default", "food,default", "none_1")),
            ("url", ("http://127.0.0.1/", "http://[::1]/x", "https://localhost:1/a.jpg")),
        ):
            if self._random.random() < 0.3:
                parts.append((name, self._text(*good)))
        return "POST", "/v3/classify" + QUERY, *self._form(parts)

    def _create(self) -> Request:
        parts = [("name", self._text("birds")), ("negative_examples", self._file())]
        for _ in range(self._random.randrange(3)):
            label = self._random.choice(["owl", "heron", "日本", "a*b", "", *EVIL_TEXTS[:6]])
            parts.append((f"{label}_positive_examples", self._file()))
        return "POST", "/v3/classifiers" + QUERY, *self._form(parts)

    def _retrain(self) -> Request:
        parts = [("owl_positive_examples", self._file())]
        return "POST", "/v3/classifiers/none_1" + QUERY, *self._form(parts)

    def _parameters(self) -> Request:
        document = json.dumps(
            {"url": "http://127.0.0.1/", "classifier_ids": ["default"], "owners": ["me"], "threshold": 0.1, "parameters": None}
        ).encode()
        return "POST", "/v3/classify" + QUERY, *self._form([("parameters", self._mutated(document, 0.9))])

    def _token(self) -> Request:
        body = b"grant_type=urn:ibm:params:oauth:grant-type:apikey&apikey=" + self._text("wrong")
        return "POST", "/identity/token", ["Content-Type: application/x-www-form-urlencoded"], body

    def _address(self) -> Request:
        method = self._random.choice(["GET", "GET", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "X"])
        path = self._random.choice(
            [
                "/v3/classifiers",
                "/v3/classifiers/none_1",
                "/v3/classifiers/..%2F..%2Fetc",
                "/v3/classifiers/none_1/core_ml_model",
                "/v3/classify",
                "/v3/user_data",
                "/visual-recognition/api/v3/classifiers/",
                "/openapi.json",
                "/v3/classifiers/" + "a" * 3000 + "_1",
                "/%00%ff",
            ]
        )
        query = self._random.choice(
            [QUERY, "", "?version=", QUERY + "&verbose=x", QUERY + "&customer_id=%F0", "?" + "a=b&" * 500]
        )
        return method, path + query, [], b""


async def send(port: int, request: bytes) -> int:
    """The highest status among the answers, 0 if there was none, -1 if the connection broke."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(60):
            answer = await reader.read(-1)
    except (ConnectionError, OSError):
        return -1
    finally:
        writer.close()
    statuses = re.findall(rb"HTTP/1\.1 (\d{3})", answer)
    return max((int(status) for status in statuses if status != b"100"), default=0)


async def send_all(port: int, requests: list[bytes]) -> list[int]:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(request: bytes) -> int:
        async with slots:
            return await send(port, request)

    return await asyncio.gather(*(one(request) for request in requests))
