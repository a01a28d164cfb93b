"""Server-sent events: what is streamed, how soon, and when a stream ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema_rs import Draft202012Validator

from ocelli_gateway import event_stream
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.stage import OTHER_KEY, PASSWORD, USER, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import V3Client, assert_error, basic, connect

PATH = "/ocelli/v1/events"


@dataclass(kw_only=True)
class Events:
    """An open stream."""

    response: httpx.Response
    lines: Iterator[str]

    def next(self) -> tuple[str, Any]:
        """The next event: its name and data. Comments are skipped."""
        found: dict[str, str] = {}
        for line in self.lines:
            if not line and found:
                return found["event"], json.loads(found["data"])
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                found[name] = value
        raise EOFError("the stream has ended")

    def next_of(self, classifier_id: str) -> tuple[str, Any]:
        """The next event of one classifier."""
        while True:
            name, data = self.next()
            if data.get("classifier_id") == classifier_id:
                return name, data


@contextmanager
def events(client: V3Client, **query: str) -> Iterator[Events]:
    with client.http.stream("GET", PATH, params=query) as response:
        opened = Events(response=response, lines=response.iter_lines())
        if response.status_code == 200:
            assert opened.next() == ("ready", {})
        else:
            response.read()
        yield opened


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    """For tests that need a gateway of their own."""
    built = Stage(folder=tmp_path / "stage")
    yield built
    built.close()


def test_stream_is_of_the_type_that_browsers_read_and_no_proxy_keeps(client: V3Client) -> None:
    with events(client) as opened:
        headers = opened.response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert headers["x-global-transaction-id"]


def test_change_arrives_within_a_second_as_the_card_of_the_list(management: ManagementClient) -> None:
    classifier_id = management.v3.created("events")
    with events(management.v3) as opened:
        started = time.monotonic()
        management.v3.stage.finish_training(classifier_id)
        name, card = opened.next_of(classifier_id)
        while card["status"] != "ready":
            name, card = opened.next_of(classifier_id)
        assert time.monotonic() - started < 1
    assert name == "classifier"
    assert card == management.card(classifier_id)
    schema = {"$ref": "#/components/schemas/Card", "components": management.document["components"]}
    Draft202012Validator(schema, validate_formats=True).validate(card)


def test_new_classifier_arrives(management: ManagementClient) -> None:
    with events(management.v3) as opened:
        classifier_id = management.v3.created("new")
        assert opened.next_of(classifier_id)[0] == "classifier"


def test_deleted_classifier_arrives_with_its_id_only(management: ManagementClient) -> None:
    classifier_id = management.v3.created("deleted")
    with events(management.v3, classifier_id=classifier_id) as opened:
        management.v3.delete(classifier_id)
        name, data = opened.next()
        while name == "classifier":
            name, data = opened.next()
    assert (name, data) == ("deleted", {"classifier_id": classifier_id})


def test_stream_of_one_classifier_has_no_other(management: ManagementClient) -> None:
    one, other = management.v3.created("one"), management.v3.created("other")
    with events(management.v3, classifier_id=one) as opened:
        management.v3.stage.finish_training(other)
        management.v3.stage.finish_training(one)
        assert opened.next()[1]["classifier_id"] == one


def test_stream_has_nothing_of_another_tenant(management: ManagementClient, gateway: GatewayInstance) -> None:
    annas = management.v3.created("annas")
    bert = connect(gateway, management.v3.stage, "bert", "other")
    with events(bert) as opened:
        management.v3.stage.finish_training(annas)
        own = bert.created("own")
        assert opened.next()[1]["classifier_id"] == own
    with events(bert, classifier_id=annas) as opened:
        management.v3.stage.finish_training(annas)
        management.v3.delete(annas)
        bert.stage.finish_training(own, namespace="team-b")
    # The answer is the same as for an unknown id: a stream without events.
    assert opened.response.status_code == 200


def test_name_cannot_break_out_of_an_event(management: ManagementClient) -> None:
    hostile = '<img onerror="x">\u2028\u2029\u0085 data: {"status": "ready"}'
    with events(management.v3) as opened:
        classifier_id = management.v3.created(hostile.replace("\u0085", ""))
        assert opened.next_of(classifier_id)[1]["name"] == hostile.replace("\u0085", "")


def test_comment_keeps_a_quiet_stream_open(client: V3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    with events(client) as opened:
        assert next(line for line in opened.lines if line) == ": "


def test_stream_ends_with_its_token(client: V3Client, gateway: GatewayInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": OTHER_KEY}
    bert = connect(gateway, client.stage, "bert", "other")
    bert.http.headers["Authorization"] = f"Bearer {bert.http.post('/identity/token', data=form).json()['access_token']}"
    now = time.time
    with events(bert) as opened:
        monkeypatch.setattr(event_stream.time, "time", lambda: now() + 3600)
        bert.created("ending")
        assert [name for name, _ in iter_events(opened)][-1] == "expired"


def test_stream_ends_when_its_credentials_are_withdrawn(
    client: V3Client, gateway: GatewayInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    carl = {"user": "carl", "namespace": "team-c", "owner": "carl"}
    client.stage.write_credentials("carl.json", password="before", **carl)
    connected = connect(gateway, client.stage, "carl", "before")
    wait_for(lambda: connected.http.get("/ocelli/v1/session").status_code == 200, "the credentials are known")
    with events(connected) as opened:
        client.stage.write_credentials("carl.json", password="after", **carl)
        assert [name for name, _ in iter_events(opened)] == ["expired"]


def test_stream_ends_when_the_gateway_stops(tmp_path: Path) -> None:
    stage = Stage(folder=tmp_path / "stage")
    with events(connect(stage.start_gateway(), stage)) as opened:
        started = time.monotonic()
        stage.close()
        assert list(iter_events(opened)) == []
    # Not after the second that the test's server waits for answers in flight.
    assert time.monotonic() - started < 1


def test_stream_ends_when_changes_do_not_arrive_any_more(own_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.1)
    with events(connect(own_stage.start_gateway(), own_stage)) as opened:
        own_stage.call(own_stage.cluster.break_watches)
        assert list(iter_events(opened)) == []


def test_tenant_has_its_share_of_streams_and_the_next_one_is_refused_at_once(own_stage: Stage) -> None:
    instance = own_stage.start_gateway(max_event_streams=4)
    client, bert = connect(instance, own_stage), connect(instance, own_stage, "bert", "other")
    with events(client), events(client):
        with events(client) as refused:
            assert_error(refused.response, 429, "limit_exceeded", "event streams")
        with events(bert) as opened:
            assert opened.response.status_code == 200
    wait_for(lambda: stream_status(client) == 200, "a stream after the others have ended")


def stream_status(client: V3Client) -> int:
    with events(client) as opened:
        return opened.response.status_code


def test_head_of_the_stream_has_no_stream(client: V3Client) -> None:
    assert client.http.head(PATH).status_code == 200


def test_stream_needs_credentials(gateway: GatewayInstance) -> None:
    wrong = {"Authorization": basic(USER, PASSWORD + "x")}
    assert_error(httpx.get(gateway.address + PATH, headers=wrong), 401, "unauthorized")


def iter_events(opened: Events) -> Iterator[tuple[str, Any]]:
    """All events until the stream ends."""
    try:
        while True:
            yield opened.next()
    except (EOFError, httpx.RemoteProtocolError):
        return
