"""Images by URL, GET /v3/classify and the older parameters (sections B2 and B3 of the REST contract)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from ocelli_api.network_addresses import NetworkRules
from tests.gateway_harness.images import build_zip, plain, png
from tests.gateway_harness.stage import OTHER_USER, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error, connect
from tests.gateway_harness.web import Web

NOT_ALLOWED = "URL Fetcher error: Could not fetch URL: Address not allowed"


@dataclass(frozen=True, kw_only=True)
class Scene:
    gateway: GatewayInstance
    client: V3Client
    web: Web
    address: str
    birds: str

    def classify(self, url: str, **fields: str) -> httpx.Response:
        return self.client.classify(url=url.replace("WEB", self.address), **{"classifier_ids": self.birds, **fields})


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Iterator[Scene]:
    web = Web()
    address = stage.start_web_server(web.build())
    gateway = stage.start_gateway(url_allowed_networks=f"{urlsplit(address).hostname}/32")
    client = connect(gateway, stage)
    birds = client.ready("birds", {"heron": 0.25, "owl": 0.871204})
    yield Scene(gateway=gateway, client=client, web=web, address=address, birds=birds)
    client.http.close()


def image_of(response: httpx.Response, index: int = 0) -> dict[str, Any]:
    item: dict[str, Any] = response.json()["images"][index]
    return item


def assert_url_error(response: httpx.Response, words: str, error_id: str = "input_error") -> None:
    assert_error(response, 400, error_id, words)
    item = image_of(response)
    assert item["error"]["description"].startswith("URL Fetcher error: ")
    assert (item["error"]["code"], item["error"]["error_id"], item["classifiers"]) == (400, error_id, [])
    assert item["source_url"]


# B2: what is answered


@pytest.mark.contract_row("B2", "A5/url", "A5/images[].source_url, images[].resolved_url")
def test_answer_names_the_url_as_given_and_as_resolved(scene: Scene) -> None:
    body = scene.classify("WEB/to?where=/good").json()
    assert body == {
        "images": [
            {
                "source_url": f"{scene.address}/to?where=/good",
                "resolved_url": f"{scene.address}/good",
                "classifiers": [
                    {"classifier_id": scene.birds, "name": "birds", "classes": [{"class": "owl", "score": 0.871204}]}
                ],
            }
        ],
        "images_processed": 1,
        "custom_classes": 1,
    }


@pytest.mark.contract_row("0.1/GET /v3/classify", "B2")
def test_get_does_what_post_does(scene: Scene) -> None:
    fields = {"url": f"{scene.address}/good", "classifier_ids": scene.birds, "threshold": "0"}
    by_get = scene.client.http.get("/v3/classify", params={**VERSION, **fields}).json()
    assert by_get == scene.client.classify(**fields).json()
    assert len(by_get["images"][0]["classifiers"][0]["classes"]) == 2


def test_post_without_a_body_reads_the_query(scene: Scene) -> None:
    params = {**VERSION, "url": f"{scene.address}/good", "classifier_ids": scene.birds}
    assert scene.client.http.post("/v3/classify", params=params).status_code == 200


def test_urlencoded_body_can_contain_the_url(scene: Scene) -> None:
    data = {"url": f"{scene.address}/good", "classifier_ids": scene.birds}
    assert scene.client.http.post("/v3/classify", data=data).status_code == 200


@pytest.mark.contract_row("A5/images")
def test_uploads_come_first_in_zip_order_then_the_url(scene: Scene) -> None:
    archive = build_zip({"b.png": png(1), "a.png": png(2)})
    fields = {"url": f"{scene.address}/good", "classifier_ids": scene.birds}
    body = scene.client.classify(("z.zip", archive), ("c.png", png()), **fields).json()
    names = [item.get("image") or item["source_url"] for item in body["images"]]
    assert names == ["z.zip/b.png", "z.zip/a.png", "c.png", f"{scene.address}/good"]


def test_twenty_uploaded_images_exclude_the_url(scene: Scene) -> None:
    scene.web.requests.clear()
    archive = build_zip({f"{index:02d}.png": png(index, (12, 12)) for index in range(20)})
    fields = {"url": f"{scene.address}/good", "classifier_ids": scene.birds}
    body = scene.client.classify(("z.zip", archive), **fields).json()
    assert (body["images_processed"], [item["warning_id"] for item in body["warnings"]]) == (20, ["limit_reached"])
    assert "source_url" not in json.dumps(body["images"])
    assert scene.web.requests == []


def test_bad_zip_and_bad_url_are_400_that_names_the_url(scene: Scene) -> None:
    fields = {"url": f"{scene.address}/missing", "classifier_ids": scene.birds}
    response = scene.client.classify(("z.zip", b"PK\x03\x04garbage"), **fields)
    assert_url_error(response, "404")
    assert response.json()["images_processed"] == 1


def test_bad_url_next_to_a_good_image_has_a_separate_error(scene: Scene) -> None:
    response = scene.client.classify(("a.png", png()), url=f"{scene.address}/page", classifier_ids=scene.birds)
    assert (response.status_code, response.json()["images_processed"]) == (200, 2)
    assert [bool(item.get("error")) for item in response.json()["images"]] == [False, True]


def test_url_has_an_item_although_no_classifier_is_known(scene: Scene) -> None:
    response = scene.classify("WEB/good", classifier_ids="none_1")
    assert_error(response, 404, "not_found")
    assert image_of(response)["source_url"] == f"{scene.address}/good"


# B2: how it is fetched


def test_ten_redirects_are_followed_and_eleven_are_not(scene: Scene) -> None:
    assert scene.classify("WEB/hop10").status_code == 200
    assert_url_error(scene.classify("WEB/hop11"), "10 redirects")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(scene: Scene, status: int) -> None:
    assert scene.classify(f"WEB/to?where=/good&status={status}").status_code == 200


@pytest.mark.parametrize(
    ("path", "words", "error_id"),
    [
        ("WEB/missing", "404", "input_error"),
        ("WEB/page", "image", "input_error"),
        ("WEB/zip", "zip", "input_error"),
        ("WEB/empty", "image", "input_error"),
        ("WEB/large", "10 MB", "limit_exceeded"),
        ("WEB/endless", "10 MB", "limit_exceeded"),
        ("WEB/cut", "", "input_error"),
        ("WEB/loop", "redirects", "input_error"),
        ("WEB/to?where=ftp://example.org/x", "http", "input_error"),
        ("HOST:1/x", "", "input_error"),
        ("http://no-such-host.invalid/x", "", "input_error"),
        ("ftp://example.org/x", "http", "input_error"),
        ("http://", "URL", "input_error"),
        ("http://[::1", "URL", "input_error"),
        ("http://a:99999/", "URL", "input_error"),
        ("not an address", "URL", "input_error"),
        ("//example.org/x", "URL", "input_error"),
        ("http://exa mple.org/", "", "input_error"),
        ("http://example.org/\u0000", "URL", "input_error"),
        ("http://" + "a" * 9000, "URL", "input_error"),
        ("data:image/png;base64,AAAA", "http", "input_error"),
    ],
    ids=lambda value: value[:28] if isinstance(value, str) else None,
)
def test_failed_fetch_is_an_error_of_the_image(scene: Scene, path: str, words: str, error_id: str) -> None:
    url = path.replace("HOST", f"http://{urlsplit(scene.address).hostname}")
    assert_url_error(scene.classify(url), words, error_id)


def test_compressed_transfer_of_an_image_is_decompressed(scene: Scene) -> None:
    assert scene.classify("WEB/gzip").status_code == 200


def test_image_of_more_than_10_mb_after_decompression_is_too_large(scene: Scene) -> None:
    assert_url_error(scene.classify("WEB/bomb"), "10 MB", "limit_exceeded")


def test_proxies_of_the_environment_are_not_used(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert scene.classify("WEB/good").status_code == 200


def test_slow_urls_of_one_tenant_do_not_delay_another(scene: Scene, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocelli_gateway.url_fetcher.TIMEOUT_SECONDS", 2.0)
    allowed = f"{urlsplit(scene.address).hostname}/32"
    gateway = stage.start_gateway(url_allowed_networks=allowed, max_concurrent_fetches=2, max_concurrent_classify_requests=8)
    anna, bert = connect(gateway, stage), connect(gateway, stage, OTHER_USER, "other")
    scene.web.requests.clear()
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(anna.classify, url=f"{scene.address}/slow") for _ in range(2)]
        wait_for(lambda: bool(scene.web.requests), "a slow fetch has begun")
        assert bert.classify(url=f"{scene.address}/good").status_code == 200
        assert not any(future.done() for future in slow)


def test_slow_name_look_ups_of_one_tenant_do_not_delay_another(
    scene: Scene, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()
    host = str(urlsplit(scene.address).hostname)

    def look_up(name: str, port: int, family: socket.AddressFamily) -> list[tuple[socket.AddressFamily, str]]:
        if name.startswith("slow"):
            may_answer.wait()
        return [(socket.AF_INET, host)]

    monkeypatch.setattr("ocelli_gateway.url_fetcher._look_up", look_up)
    gateway = stage.start_gateway(url_allowed_networks=f"{host}/32")
    anna, bert = connect(gateway, stage), connect(gateway, stage, OTHER_USER, "other")
    try:
        # Half of the slots: a tenant's share. The requests time out; their look-ups continue, as they cannot be cancelled.
        with monkeypatch.context() as patch, ThreadPoolExecutor(16) as threads:
            patch.setattr("ocelli_gateway.url_fetcher.TIMEOUT_SECONDS", 0.3)
            list(threads.map(lambda index: anna.classify(url=f"http://slow{index}.test/"), range(16)))
        assert bert.classify(url=f"http://fast.test:{urlsplit(scene.address).port}/good").status_code == 200
    finally:
        may_answer.set()


def test_fetch_from_a_slow_server_times_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocelli_gateway.url_fetcher.TIMEOUT_SECONDS", 0.3)
    assert_url_error(scene.classify("WEB/slow"), "seconds")


def test_credentials_are_not_passed_on(scene: Scene) -> None:
    scene.web.requests.clear()
    scene.client.http.post(
        "/v3/classify",
        data={"url": f"{scene.address}/good", "classifier_ids": scene.birds},
        headers={"Cookie": "a=b", "X-Watson-Metadata": "customer_id=c"},
    )
    (request,) = scene.web.requests
    assert not {"authorization", "cookie", "x-watson-metadata"} & set(request.headers)


def test_nothing_is_left_on_the_disk(scene: Scene, stage: Stage) -> None:
    for path in ("good", "large", "cut"):
        scene.classify(f"WEB/{path}")
    assert list(stage.upload_folder.iterdir()) == []


# B2: private networks


@pytest.mark.contract_row("B2/Private networks")
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fd00::1]",
        "[ff02::1]",
        "[::]",
        "0.0.0.0",
        "0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
    ],
)
def test_private_address_is_refused_in_every_spelling(scene: Scene, host: str) -> None:
    response = scene.classify(f"http://{host}:{scene.gateway.port}/livez")
    assert_error(response, 400, "input_error")
    assert image_of(response)["error"]["description"] == NOT_ALLOWED


@pytest.mark.contract_row("B2/Private networks")
def test_redirect_to_a_private_address_is_checked_again(scene: Scene) -> None:
    response = scene.classify(f"WEB/to?where=http://127.0.0.1:{scene.gateway.port}/livez")
    assert image_of(response)["error"]["description"] == NOT_ALLOWED


class _Rebinding(AbstractResolver):
    """Stands in for a DNS server that answers with another address at each call."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.calls = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        self.calls += 1
        address = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.mark.contract_row("B2/Private networks")
def test_name_with_a_changing_address_is_not_connected_to(stage: Stage, scene: Scene) -> None:
    allowed = str(urlsplit(scene.address).hostname)
    resolver = _Rebinding(allowed, "127.0.0.1")
    gateway = stage.start_gateway(url_allowed_networks=f"{allowed}/32", resolver=resolver)
    client = connect(gateway, stage)
    port = urlsplit(scene.address).port
    url = f"http://rebinding.test:{port}/to?where=http://rebinding.test:{gateway.port}/livez"
    response = client.classify(url=url, classifier_ids=scene.birds)
    assert (resolver.calls, image_of(response)["error"]["description"]) == (2, NOT_ALLOWED)


class _Names(AbstractResolver):
    """A DNS server that knows some names."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self._known:
            raise OSError("Name or service not known")
        return [ResolveResult(hostname=host, host=self._known[host], port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.mark.contract_row("B2/Private networks")
@pytest.mark.parametrize(
    "host",
    [
        "clf-dogs",
        "clf-dogs.team-b.svc",
        "clf-dogs.team-b.svc.",
        "CLF-DOGS.TEAM-B.SVC",
        "clf-dogs.team-b.ｓvc",
        "clf-dogs.team-b.svc.cluster.local",
        "clf-dogs.team-b.svc.k8s.example.org",
        "10-0-0-1.team-b.pod.cluster.local",
        "printer.local",
        "metadata.google.internal",
        "a.localhost",
    ],
)
def test_internal_name_is_refused_without_a_look_up(stage: Stage, host: str) -> None:
    resolver = _Names({})
    client = connect(stage.start_gateway(resolver=resolver), stage)
    response = client.classify(url=f"http://{host}/")
    assert (image_of(response)["error"]["description"], resolver.asked) == (NOT_ALLOWED, [])


def test_name_is_not_completed_by_the_domains_of_the_cluster(stage: Stage) -> None:
    resolver = _Names({})
    client = connect(stage.start_gateway(resolver=resolver), stage)
    assert_url_error(client.classify(url="http://clf-dogs.team-b/"), "cannot be resolved")
    # The final dot makes the name absolute.
    assert resolver.asked == ["clf-dogs.team-b."]


def test_internal_name_in_an_allowed_network_is_fetched(scene: Scene, stage: Stage) -> None:
    allowed = str(urlsplit(scene.address).hostname)
    resolver = _Names({"images.team-a.svc": allowed})
    client = connect(stage.start_gateway(url_allowed_networks=f"{allowed}/32", resolver=resolver), stage)
    assert client.classify(url=f"http://images.team-a.svc:{urlsplit(scene.address).port}/good").status_code == 200


def test_allowed_networks_do_not_reveal_other_internal_names(stage: Stage) -> None:
    resolver = _Names({"clf-dogs.team-b.svc": "10.96.3.4"})
    client = connect(stage.start_gateway(url_allowed_networks="10.1.0.0/16", resolver=resolver), stage)
    hosts = ("clf-dogs.team-b.svc", "clf-cats.team-b.svc")
    descriptions = [image_of(client.classify(url=f"http://{host}/"))["error"]["description"] for host in hosts]
    assert descriptions == [NOT_ALLOWED, NOT_ALLOWED]


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("198.18.0.1", False),
        ("168.63.129.16", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("2001::1", False),
        ("64:ff9b::8.8.8.8", True),
        ("2002:0a00:0001::1", False),
        # RFC 6052: in a prefix of 48 bits the address stands elsewhere than in the last 32. This is 10.0.0.1.
        ("64:ff9b:1:a00:0:108:808:808", False),
        ("64:ff9b:1::8.8.8.8", False),
        ("fec0::1", False),
        ("nonsense", False),
    ],
)
def test_only_public_addresses_are_connected_to(address: str, allowed: bool) -> None:
    assert NetworkRules().may_connect(address) is allowed


def test_listed_networks_are_allowed() -> None:
    rules = NetworkRules.parse(allowed="10.1.0.0/16", denied="")
    addresses = ("10.1.2.3", "::ffff:10.1.2.3", "10.2.0.1")
    assert [rules.may_connect(address) for address in addresses] == [True, True, False]


def test_denied_networks_are_denied_in_every_form_of_address() -> None:
    rules = NetworkRules.parse(allowed="0.0.0.0/0,::/0", denied="93.184.0.0/16,10.1.0.0/16")
    addresses = ("93.184.215.14", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e", "2002:a01:203::", "10.2.0.1", "8.8.8.8")
    assert [rules.may_connect(address) for address in addresses] == [False, False, False, False, True, True]


def test_image_in_a_denied_network_is_not_fetched(stage: Stage) -> None:
    gateway = stage.start_gateway(url_allowed_networks="127.0.0.0/8", url_denied_networks="127.0.0.3/32")
    response = connect(gateway, stage).classify(url="http://127.0.0.3:9/owl.png", classifier_ids="default")
    assert_error(response, 400)
    assert response.json()["images"][0]["error"]["description"] == NOT_ALLOWED


# B3: the older document


@pytest.mark.contract_row("B3", "A5/parameters")
@pytest.mark.parametrize(
    "document",
    [
        {"url": "WEB/good", "classifier_ids": ["BIRDS", "default"], "threshold": 0.1},
        {"url": "WEB/good", "classifier_ids": "BIRDS, default", "threshold": ".1"},
        {"url": "WEB/good", "classifier_ids": ["BIRDS,default"], "threshold": "0.1", "owner": "me"},
        {"parameters": {"url": "WEB/good", "classifier_ids": ["BIRDS", "default"], "threshold": 0.1}},
    ],
    ids=["lists", "texts", "mixed", "wrapped"],
)
@pytest.mark.parametrize("place", ["part", "file", "query", "json part"])
def test_document_of_every_form_is_read_from_every_place(scene: Scene, document: dict[str, Any], place: str) -> None:
    text = json.dumps(document).replace("WEB", scene.address).replace("BIRDS", scene.birds)
    http = scene.client.http
    if place == "query":
        response = http.post("/v3/classify", params={**VERSION, "parameters": text})
    else:
        part: Any = {
            "part": (None, text),
            "file": ("p.json", text, "text/plain"),
            "json part": (None, text, "application/json"),
        }[place]
        response = http.post("/v3/classify", files=[("parameters", part)])
    assert response.status_code == 200, response.text
    answered = response.json()["images"][0]["classifiers"]
    assert [item["classifier_id"] for item in answered] == [scene.birds, "default"]
    assert len(answered[0]["classes"]) == 2


@pytest.mark.contract_row("B3", 'D/File names on text parts. -F "parameters=@p.json" sends a')
def test_separate_part_overrides_the_document(scene: Scene) -> None:
    parameters = json.dumps({"classifier_ids": ["food"], "threshold": 1})
    body = scene.client.classify(("a.png", png()), parameters=parameters, classifier_ids=scene.birds, threshold="0").json()
    assert [len(item["classes"]) for item in body["images"][0]["classifiers"]] == [2]


def test_document_in_the_form_takes_precedence_over_the_query(scene: Scene) -> None:
    parameters = json.dumps({"classifier_ids": [scene.birds], "threshold": 0})
    params = {"classifier_ids": "food", "threshold": "1", "parameters": '{"threshold": 1}'}
    body = scene.client.classify(("a.png", png()), params=params, parameters=parameters).json()
    assert [len(item["classes"]) for item in body["images"][0]["classifiers"]] == [2]


def test_separate_query_field_overrides_the_document_in_the_query(scene: Scene) -> None:
    params = {"classifier_ids": scene.birds, "parameters": '{"classifier_ids": "food", "threshold": 0}'}
    body = scene.client.classify(("a.png", png()), params=params).json()
    assert [len(item["classes"]) for item in body["images"][0]["classifiers"]] == [2]


@pytest.mark.parametrize("owners", ["me", ["me"], ["ME"]])
def test_owners_of_the_document_count(scene: Scene, owners: Any) -> None:
    body = scene.client.classify(("a.png", png()), parameters=json.dumps({"owners": owners})).json()
    assert scene.birds in [item["classifier_id"] for item in body["images"][0]["classifiers"]]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "1",
        "null",
        '"{}"',
        '{"threshold": NaN}',
        '{"threshold": Infinity}',
        '{"threshold": "high"}',
        '{"threshold": [0.5]}',
        '{"threshold": true}',
        '{"classifier_ids": {"a": 1}}',
        '{"classifier_ids": [1]}',
        '{"owners": ["you"]}',
        '{"url": ["a", "b"]}',
        '{"parameters": 7}',
        "[" * 100_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        '{"threshold": 1e999}',
        '{"threshold": ' + "9" * 10_000 + "}",
        '{"url": "\\ud800"}',
    ],
    ids=lambda text: text[:24],
)
def test_invalid_document_is_400(scene: Scene, text: str) -> None:
    response = scene.client.classify(("a.png", plain((1, 2, 3))), parameters=text, classifier_ids="")
    assert_error(response, 400)


def test_unknown_keys_of_the_document_are_ignored(scene: Scene) -> None:
    parameters = json.dumps({"classifier_ids": [scene.birds], "color": {"deep": [1]}})
    assert scene.client.classify(("a.png", png()), parameters=parameters).status_code == 200
