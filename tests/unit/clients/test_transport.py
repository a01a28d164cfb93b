"""What clients make of answers that are not Ocelli's, of interruptions, and of the stream of events; sync and async alike."""

from __future__ import annotations

import inspect
from pathlib import Path

import httpx
import pytest

from ocelli_client import (
    AnswerError,
    AsyncOcelli,
    BusyError,
    ConflictError,
    Connection,
    LoginError,
    NotFoundError,
    Ocelli,
    OcelliError,
    RefusedError,
    Wait,
)
from ocelli_client.calls import parse_document
from ocelli_client.errors import NotReachableError
from ocelli_client.events import EventReader
from ocelli_client.retries import Patience
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.photographs import write_images
from tests.unit.clients.trainings import after_creation

REQUEST = httpx.Request("GET", "https://vision.example.org/ocelli/v1/classifiers?api_key=secret")


def answer(status: int, **content: object) -> httpx.Response:
    return httpx.Response(status, request=REQUEST, **content)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RefusedError), (401, LoginError), (404, NotFoundError), (409, ConflictError), (429, RefusedError), (503, BusyError)],
)
def test_each_refusal_has_its_error(status: int, kind: type[RefusedError]) -> None:
    with pytest.raises(kind, match="because") as caught:
        parse_document(answer(status, json={"code": status, "error": "because", "error_id": "x"}))
    assert type(caught.value) is kind
    assert caught.value.code == status


def test_a_busy_gateway_says_when_to_ask_again() -> None:
    with pytest.raises(BusyError) as caught:
        parse_document(answer(429, json={"error": "too many"}, headers={"Retry-After": "7"}))
    assert caught.value.retry_after_seconds == 7


def test_a_rate_of_the_gateway_passes_as_its_retry_after_says() -> None:
    body = {"code": 429, "error": "The quota of requests is used up", "error_id": "limit_exceeded"}
    with pytest.raises(BusyError, match="is used up") as caught:
        parse_document(answer(429, json=body, headers={"Retry-After": "3"}))
    assert caught.value.retry_after_seconds == 3


def test_a_proxy_with_too_many_requests_counts_as_busy_also_without_a_time() -> None:
    with pytest.raises(BusyError, match=r"vision\.example\.org answered 429"):
        parse_document(answer(429, html="<h1>Too many requests</h1>"))


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_page_of_another_server_is_not_an_answer(status: int) -> None:
    with pytest.raises(AnswerError, match="check the address") as caught:
        parse_document(answer(status, html="<h1>Welcome</h1>"))
    assert "secret" not in str(caught.value)


def test_a_proxy_without_its_server_counts_as_busy() -> None:
    with pytest.raises(BusyError, match=r"vision\.example\.org answered 502"):
        parse_document(answer(502, html="<h1>Bad Gateway</h1>"))


@pytest.mark.parametrize("url", ["", "vision.example.org", "ftp://vision.example.org", "https://"])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(OcelliError, match=r"https://vision\.example\.org"):
        Connection(url=url)


def test_credentials_must_be_of_one_kind() -> None:
    with pytest.raises(OcelliError, match="Several kinds of credentials"):
        Connection(url="https://vision.example.org", user="anna", api_key="k")


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(Connection(url="https://vision.example.org", user="anna", password="secret"))


def test_both_clients_have_the_same_methods() -> None:
    def list_methods(kind: type) -> dict[str, list[str]]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in functions if not name.startswith("_")}

    assert list_methods(Ocelli) == list_methods(AsyncOcelli)


@pytest.mark.anyio
async def test_the_async_client_reads_what_the_other_one_reads(client: V3Client, gateway: GatewayInstance) -> None:
    client.ready()
    with Ocelli(gateway.address, user=USER, password=PASSWORD) as ocelli:
        expected = ocelli.list()
    async with AsyncOcelli(gateway.address, user=USER, password=PASSWORD) as ocelli:
        assert await ocelli.list() == expected
        assert await ocelli.resolve(expected[0].classifier_id) == expected[0]
        with pytest.raises(NotFoundError):
            await ocelli.resolve("nothing")


def test_events_follow_a_classifier(client: V3Client, gateway: GatewayInstance) -> None:
    classifier_id = client.created("followed")
    with Ocelli(gateway.address, user=USER, password=PASSWORD) as ocelli:
        events = ocelli.events(classifier_id)
        assert next(events).kind == "ready"
        client.stage.finish_training(classifier_id)
        changed = next(event for event in events if event.card is not None and event.card.status == "ready")
        assert changed.card is not None
        assert changed.card.classifier_id == classifier_id
        client.delete(classifier_id)
        assert next(event.data for event in events if event.kind == "deleted") == {"classifier_id": classifier_id}


@pytest.mark.anyio
async def test_events_of_the_async_client(client: V3Client, gateway: GatewayInstance) -> None:
    async with AsyncOcelli(gateway.address, user=USER, password=PASSWORD) as ocelli:
        async for event in ocelli.events():
            assert event.kind == "ready"
            break


def test_events_need_credentials(gateway: GatewayInstance) -> None:
    with Ocelli(gateway.address, user=USER, password="wrong") as ocelli, pytest.raises(LoginError):
        next(ocelli.events())


@pytest.mark.anyio
async def test_the_async_client_creates_and_waits(client: V3Client, gateway: GatewayInstance, tmp_path: Path) -> None:
    ended = after_creation(client, "async", client.stage.finish_training)
    classes = {"heron": write_images(tmp_path / "a", range(10)), "owl": [write_images(tmp_path / "b", range(10, 20))]}
    async with AsyncOcelli(gateway.address, user=USER, password=PASSWORD) as ocelli:
        created = await ocelli.create("async", classes)
        details = await ocelli.wait(created.classifier_id, Wait(timeout_seconds=60))
        assert details.status == "ready"
        found = await ocelli.classify(details.classifier_id, [tmp_path / "a" / "000.jpg"], threshold=0)
        assert found.images[0].best is not None
        assert found.images[0].best.class_name == "heron"
        await ocelli.delete(details.classifier_id)
    ended.result()


def test_patience_pauses_longer_each_time_and_ends() -> None:
    now = [0.0]
    patience = Patience(seconds=10, clock=lambda: now[0])
    pauses = []
    while (pause := patience.find_pause(NotReachableError("gone"))) is not None:
        pauses.append(pause)
        now[0] += pause
    assert pauses == [1, 2, 4]
    patience.report_success()
    assert patience.find_pause(NotReachableError("gone")) == 1


def test_lines_become_events() -> None:
    reader = EventReader()
    lines = ["event: ready", "data: {}", "", ": ping", "", "event: classifier", 'data: {"a":', "data: 1}", ""]
    events = [event for line in lines for event in reader.read_line(line)]
    assert [(event.kind, dict(event.data)) for event in events] == [("ready", {}), ("classifier", {"a": 1})]


@pytest.mark.parametrize("url", ["http://vision:abc", "http://vision:99999999", "http://[::1", "ftp://vision", "vision"])
def test_what_is_not_an_address_is_said_in_words(url: str) -> None:
    with pytest.raises(OcelliError, match="is not an address of a gateway"):
        Connection(url=url)


def test_credentials_in_an_address_are_refused_and_not_shown() -> None:
    with pytest.raises(OcelliError, match="has credentials in it") as caught:
        Connection(url="https://anna:secret@vision.example.org/")
    assert "secret" not in str(caught.value)


def test_a_token_from_a_file_may_end_in_a_line_break() -> None:
    headers = Connection(url="https://vision.example.org", token="abc.def\n").build_client_options()["headers"]
    assert headers["Authorization"] == "Bearer abc.def"


@pytest.mark.parametrize("token", ["secret\nsecret", "secr\u00e9t", "\n"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(OcelliError, match="copy it again") as caught:
        Connection(url="https://vision.example.org", token=token)
    assert "secr" not in str(caught.value)
