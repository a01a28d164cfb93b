"""Thousands of hostile requests to a gateway in its own process: each gets a correct answer.

`OCELLI_HOSTILE_SEED` repeats the requests of a run, `OCELLI_HOSTILE_REQUESTS` sets their number; the seed is printed.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ocelli_gateway.errors import ERROR_IDS
from tests.benchmarks.processes import memory_megabytes
from tests.hostile.requests import Hostile, ask, draw_requests
from tests.integration.gateway.gateway_process import GatewayProcess
from tests.integration.gateway.raw_exchange import exchange

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000)]


REQUESTS = int(os.environ.get("OCELLI_HOSTILE_REQUESTS", "10000"))
SEED = int(os.environ.get("OCELLI_HOSTILE_SEED") or random.SystemRandom().randrange(2**32))
CONCURRENT_REQUESTS = 8
ANSWER_SECONDS = 100.0
MEASURED_EVERY = 50
GROWTH_MEGABYTES = 10
"""Much less than a leak of 4 kB per request would need."""
PYTHON_WORDS = (
    "Traceback",
    "codec",
    "Errno",
    "NoneType",
    "object has no attribute",
    "invalid literal",
    "unpack requires",
    "index out of range",
    "surrogates not allowed",
    "Expecting value",
    "Expecting property name",
    "Error -",
    "invalid stored block",
    "incorrect header check",
    "cannot identify image",
    "broken data stream",
    "0x7f",
    "site-packages",
    ".py",
)
EXCEPTIONS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
)
_NAME = re.compile(r"\b[A-Z][A-Za-z]+(?:Error|Exception|Warning)\b")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(kw_only=True)
class Findings:
    """Observations of all requests."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    messages: dict[tuple[int, str], str] = field(default_factory=dict)
    """An example of each message, by its status and its text without parts of the request."""
    faults: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def parse_answers(data: bytes, *, to_head: bool) -> list[Answer]:
    """All answers on a connection. `to_head`: the first one answers HEAD: it declares a body and has none."""
    answers: list[Answer] = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator or not head.startswith(b"HTTP/1.1 "):
            raise ValueError(f"no HTTP: {data[:200]!r}")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if status == 100 else int(headers["content-length"])
        if to_head and not answers and (not rest or rest.startswith(b"HTTP/1.1 ")):
            length = 0
        if status != 100:
            answers.append(Answer(status=status, headers=headers, body=rest[:length]))
        data = rest[length:]
    return answers


def find_python(text: str) -> str | None:
    """Words that show that a message is, or contains, that of a Python exception."""
    names = _NAME.findall(text) + [name for name in EXCEPTIONS if re.search(rf"\b{name}\b", text)]
    return next(iter(names + [word for word in PYTHON_WORDS if word in text]), None)


def describe_fault(hostile: Hostile, answer: Answer) -> str | None:
    """The faults of an answer."""
    if answer.status >= 500:
        return f"answered {answer.status}: {answer.body[:300]!r}"
    if not answer.headers.get("x-global-transaction-id"):
        return "no transaction id"
    if hostile.statuses and answer.status not in hostile.statuses:
        return f"answered {answer.status}, right is {sorted(hostile.statuses)}: {answer.body[:400]!r}"
    if answer.headers.get("content-type", "").startswith("text/plain") and not hostile.statuses:
        return None
    if not answer.body and hostile.request.startswith(b"HEAD"):
        return None
    try:
        body: dict[str, Any] = json.loads(answer.body)
    except ValueError:
        return f"no JSON: {answer.body[:300]!r}" if answer.body else f"an empty body with {answer.status}"
    if 200 <= answer.status < 300:
        return hostile.check(body) if answer.status == 200 else None
    if body.get("code") != answer.status or not isinstance(body.get("error"), str) or body.get("error_id") not in ERROR_IDS:
        return f"no body of an error: {body}"
    if answer.status in (429, 503) and "retry-after" not in answer.headers:
        return "no Retry-After"
    texts = [body["error"], *(item.get("error", {}).get("description", "") for item in body.get("images", []))]
    shown = next((found for text in texts if (found := find_python(text))), None)
    return f"a message shows Python ({shown}): {texts}" if shown else hostile.refusal(body)


def generic(message: str) -> str:
    """A message without parts that differ between requests."""
    text = re.sub(r'"[^"]*"', '"…"', message)
    text = re.sub(r"(were found|not found|find the classifier):? .*", r"\1 …", text)
    text = re.sub(r"(Skipped: ).*", r"\1…", text)
    return re.sub(r"\d+", "N", text)[:200]


async def send_all(gateway: GatewayProcess, findings: Findings) -> None:
    draw = draw_requests(SEED)
    numbers = iter(range(REQUESTS))

    async def client() -> None:
        for number in numbers:
            if number % MEASURED_EVERY == 0:
                assert gateway.process is not None
                findings.memory.append(memory_megabytes(gateway.process.pid, "VmRSS"))
            await one(number, draw())

    async def one(number: int, hostile: Hostile) -> None:
        def fault(text: str) -> None:
            shown = hostile.request[:600]
            findings.faults.append(f"request {number}, {hostile.kind}: {text}\n    {shown!r}")

        try:
            answer = await exchange(gateway.port, hostile.request, finish=hostile.finish, timeout_seconds=ANSWER_SECONDS)
            answers = parse_answers(answer, to_head=hostile.request.startswith(b"HEAD "))
        except TimeoutError:
            fault(f"no answer in {ANSWER_SECONDS:.0f} s")
            return
        except (OSError, ValueError, KeyError) as error:
            fault(f"the connection broke: {error!r}")
            return
        # A client that never ends a request's head has sent no request.
        if len(answers) != hostile.answers and (hostile.statuses or (not answers and b"\r\n\r\n" in hostile.request)):
            fault(f"{len(answers)} answers, right is {hostile.answers}")
        for answer in answers:
            findings.statuses[hostile.kind, answer.status] += 1
            problem = describe_fault(hostile, answer)
            if problem is not None:
                fault(problem)
            if answer.status >= 400 and answer.body:
                note(findings, answer)
            if hostile.creates and answer.status == 200:
                target = f"/v3/classifiers/{json.loads(answer.body)['classifier_id']}?version=2018-03-19"
                removal = Hostile(kind="removal", request=ask("DELETE", target), statuses=frozenset({200}))
                await one(number, removal)

    await asyncio.gather(*(client() for _ in range(CONCURRENT_REQUESTS)))


def note(findings: Findings, answer: Answer) -> None:
    try:
        body = json.loads(answer.body)
        messages = [body["error"], *(item["error"]["description"] for item in body.get("images", []) if "error" in item)]
    except (ValueError, KeyError, TypeError):
        return
    for message in messages:
        findings.messages.setdefault((answer.status, generic(message)), message)


def report(findings: Findings) -> None:
    print(f"\nseed {SEED}, {REQUESTS} requests; OCELLI_HOSTILE_SEED={SEED} draws them again")
    for (kind, status), count in sorted(findings.statuses.items()):
        print(f"  {kind:32} {status} {count:6}")
    quarters = [part for part in _quarters(findings.memory) if len(part) > 1]
    print("memory, MB, of each quarter: " + ", ".join(f"{at_rest(part):.0f} to {max(part):.0f}" for part in quarters))
    print(f"{len(findings.messages)} messages:")
    for (status, _), message in sorted(findings.messages.items()):
        print(f"  {status} {message[:400]!r}")
    print(f"{len(findings.faults)} faults:")
    for text in findings.faults[:200]:
        print(f"  {text}")


def at_rest(memory: list[float]) -> float:
    """Memory while no large picture is decoded, which is most of the time."""
    return statistics.quantiles(memory, n=4)[0]


def _quarters(values: list[float]) -> list[list[float]]:
    size = max(1, len(values) // 4)
    return [values[:size], values[size : 2 * size], values[2 * size : 3 * size], values[3 * size :]]


@pytest.fixture(scope="module")
def findings() -> Findings:
    return Findings()


def test_hostile_requests_get_correct_answers(
    start_gateway: Callable[..., GatewayProcess],
    namespace: str,
    findings: Findings,
) -> None:
    gateway = start_gateway(namespace, OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS="20", OCELLI_LOG_LEVEL="WARNING")
    gateway.wait_until_healthy()

    asyncio.run(send_all(gateway, findings))

    report(findings)
    log = [line for line in gateway.log.read_text().splitlines() if "Traceback" in line or '"level": "error"' in line.lower()]
    assert findings.faults == []
    assert log == []
    assert gateway.health().status_code == 200


def test_memory_is_flat_in_the_second_half(findings: Findings) -> None:
    *_, third, last = _quarters(findings.memory)
    assert at_rest(last) - at_rest(third) < GROWTH_MEGABYTES
