"""Every kind of REST answer, whole, as YAML next to this file. `make golden` rewrites it; the diff is reviewed.

The requests run in their order against one stage. What differs from run to run (ids, times, tokens, addresses) is replaced.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_api.export import ExportFormat
from ocelli_cluster.client import ConflictError, InvalidError, NotFoundError, QuotaError
from tests.contract.test_v3_create import REFUSALS, Refusal
from tests.contract.test_v3_downloads import store_exports
from tests.gateway_harness.images import build_zip, examples, plain, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, exchange, head, multipart
from tests.gateway_harness.stage import OTHER_KEY, GatewayInstance, Stage
from tests.gateway_harness.v3_client import TWO_SETS, VERSION, V3Client, connect
from tests.gateway_harness.web import Web

GOLDEN = Path(__file__).parent / "answers.yaml"
QUERY = "?version=2018-03-19"
HEADERS = ("allow", "content-disposition", "content-type", "retry-after", "www-authenticate")
KEY_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
LONG = {"more than 10,000 images", "one zip above 100 MB", "501 classes", "500 classes of long names", "zip bombs"}
PICTURE = ("a.png", plain((120, 130, 20)))
FORM_HEAD = ("POST", "/v3/classify" + QUERY, f"Content-Type: {MULTIPART_TYPE}")
MORE_STORKS = [("stork_positive_examples", ("stork.zip", examples(31)))]


@dataclass(kw_only=True)
class Scene:
    """Gateways and classifiers in every state."""

    stage: Stage
    gateway: GatewayInstance
    client: V3Client
    web: str
    ids: dict[str, str] = field(default_factory=dict)

    def limited(self, **settings: Any) -> V3Client:
        return connect(self.stage.start_gateway(**settings), self.stage)

    def post(self, *headers_and_body: tuple[str, bytes], **options: Any) -> httpx.Response:
        content = multipart(headers_and_body)
        return self.client.http.post("/v3/classify", content=content, headers={"Content-Type": MULTIPART_TYPE}, **options)

    def classify(self, *images: tuple[str, bytes], **fields: str) -> httpx.Response:
        return self.client.classify(*images, **{"classifier_ids": self.ids["birds"], **fields})

    def fetch(self, name: str) -> httpx.Response:
        return self.classify(url=f"{self.web}/{name}")

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.http.get(path, **options)

    def token(self, **fields: str) -> httpx.Response:
        return httpx.post(f"{self.gateway.address}/identity/token", data=fields)

    def failing(self, attribute: str, error: Exception, act: Callable[[], httpx.Response]) -> httpx.Response:
        setattr(self.stage.cluster, attribute, error)
        return act()

    def unreachable(self, act: Callable[[], httpx.Response]) -> httpx.Response:
        self.stage.cluster.reachable = False
        try:
            return act()
        finally:
            self.stage.cluster.reachable = True


def put_classifier(stage: Stage, identity: str, spec: dict[str, Any], **more: Any) -> str:
    manifest = {
        "metadata": {
            "name": identity.replace("_", "-"),
            "labels": {CLASSIFIER_ID_LABEL: identity},
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": spec,
        "status": {"classifierID": identity},
    }
    stage.put_classifier(manifest | more)
    return identity


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with closing(Stage(folder=tmp_path_factory.mktemp("rest"))) as stage:
        web = stage.start_web_server(Web().build())
        gateway = stage.start_gateway(url_allowed_networks=f"{urlsplit(web).hostname}/32")
        client = connect(gateway, stage)
        built = Scene(stage=stage, gateway=gateway, client=client, web=web)
        built.ids["birds"] = client.created("birds")
        accuracy = {"accuracy": "0.93", "accuracyInterval": {"lower": "0.874", "upper": "0.967"}}
        stage.finish_training(built.ids["birds"], {"heron": 0.25, "owl": 0.871204}, figures=accuracy)
        store_exports(stage, built.ids["birds"], {ExportFormat.CORE_ML: b" core", ExportFormat.ONNX: b" onnx"})
        built.ids["training"] = client.created("training")
        built.ids["failed"] = client.created("failed")
        stage.fail_training(built.ids["failed"], 'Classifier: class "owl" has 3 examples; add at least 7')
        written = stage.classifier(built.ids["birds"])["spec"]
        built.ids["manifest"] = put_classifier(stage, "manifest_1", {**written, "displayName": "manifest"})
        built.ids["published"] = put_classifier(stage, "published_1", {"pretrained": {"weights": {"url": "file:///w/"}}})
        built.ids["unreadable"] = put_classifier(stage, "unreadable_1", {"classes": 7})
        built.ids["gone"] = client.ready("gone")
        built.ids["deleted"] = client.created("deleted")
        yield built
        client.http.close()


Answer = httpx.Response | bytes
Request = Callable[[Scene], Answer]


def create(name: str = "refused", **options: Any) -> Request:
    return lambda scene: scene.client.create(name, **options)


def raw(*head_of_request: str, body: bytes = b"", finish: bool = False) -> Request:
    return lambda scene: exchange(scene.gateway, head(*head_of_request) + body, finish=finish)


def classify(*images: tuple[str, bytes], **fields: str) -> Request:
    return lambda scene: scene.classify(*images, **fields)


def part(headers: str, data: bytes = b"x") -> Request:
    return lambda scene: scene.post((headers, data))


def fetch(name: str) -> Request:
    return lambda scene: scene.fetch(name)


def get(path: str, **options: Any) -> Request:
    return lambda scene: scene.get(path.format_map(scene.ids), **options)


def token(**fields: str) -> Request:
    return lambda scene: scene.token(**fields)


def on(method: str, classifier: str, **options: Any) -> Request:
    return lambda scene: scene.client.http.request(method, f"/v3/classifiers/{scene.ids[classifier]}", **options)


def twice_limited(path: str = "/v3/classifiers", **settings: Any) -> Request:
    def act(scene: Scene) -> Answer:
        client = scene.limited(**settings)
        client.http.get(path)
        return client.http.get(path)

    return act


def with_parameters(text: str) -> Request:
    return lambda scene: scene.client.classify(PICTURE, parameters=text)


def refused(refusal: Refusal) -> Request:
    return lambda scene: scene.client.create(refusal.name, list(refusal.parts()))


def kill_server_and_classify(scene: Scene) -> Answer:
    servers = [server for server in scene.stage.servers if server.classifier_id == scene.ids["gone"]]
    for server in servers:
        scene.stage.kill_server(server)
    return scene.limited(prediction_timeout_seconds=1.0).classify(PICTURE, classifier_ids=scene.ids["gone"])


def refused_by_server(status: int, kind: str) -> Request:
    def act(scene: Scene) -> Answer:
        server = next(server for server in scene.stage.servers if server.classifier_id == scene.ids["birds"])
        server.refusal = (status, kind)
        try:
            return scene.classify(PICTURE)
        finally:
            server.refusal = None

    return act


def refresh(scene: Scene) -> Answer:
    given = scene.token(grant_type=KEY_GRANT, apikey=OTHER_KEY).json()["refresh_token"]
    return scene.token(grant_type="refresh_token", refresh_token=given)


def with_bearer(scene: Scene) -> Answer:
    given = scene.token(grant_type=KEY_GRANT, apikey=OTHER_KEY).json()["access_token"]
    return httpx.get(f"{scene.gateway.address}/v3/classifiers{QUERY}", headers={"Authorization": f"Bearer {given}"})


def changing_too_fast(scene: Scene) -> Answer:
    async def conflict(*_: Any, **__: Any) -> Any:
        raise ConflictError(409, "the object has been modified", "Conflict")

    patch, scene.stage.cluster.patch = scene.stage.cluster.patch, conflict  # type: ignore[method-assign]
    try:
        return scene.client.retrain(scene.ids["birds"], MORE_STORKS)
    finally:
        scene.stage.cluster.patch = patch  # type: ignore[method-assign]


def stored_elsewhere(scene: Scene) -> Answer:
    """A retrain when the store lacks the served definition."""
    identity = scene.client.ready("lost")
    scene.client.retrain(identity, MORE_STORKS)
    for path in scene.stage.store_folder.rglob(f"*{identity}*/**/definition.json"):
        path.unlink()
    return scene.client.retrain(identity, MORE_STORKS)


def stopped(scene: Scene) -> Answer:
    impatient = scene.stage.start_gateway(body_timeout_seconds=0.2)
    return exchange(impatient, head(*FORM_HEAD, "Content-Length: 500", "Connection: close") + b"--BOUNDARY\r\n")


def impatient(scene: Scene) -> Answer:
    server = next(server for server in scene.stage.servers if server.classifier_id == scene.ids["birds"])
    server.delay_seconds = 5.0
    try:
        # Long enough to connect on a machine with other work; a server without a connection is another answer.
        return scene.limited(prediction_timeout_seconds=1.0).classify(PICTURE, classifier_ids=scene.ids["birds"])
    finally:
        server.delay_seconds = 0.0


def large_upload(scene: Scene) -> Answer:
    client = scene.limited(quota_upload_megabytes_per_hour=1)
    large = [(name, (file, data + bytes(700_000))) for name, (file, data) in TWO_SETS]
    client.create("first", large)
    return client.create("second", large)


REQUESTS: dict[str, Request] = {
    # The operations.
    "details": on("GET", "birds"),
    "details of one in training": on("GET", "training"),
    "details of one that failed": on("GET", "failed"),
    "details of published weights": on("GET", "published"),
    "details by an unreadable object": on("GET", "unreadable"),
    "brief list": get("/v3/classifiers"),
    "verbose list": get("/v3/classifiers", params={**VERSION, "verbose": "true"}),
    "classify": classify(PICTURE, ("b.png", png())),
    "classify with threshold 0": classify(PICTURE, threshold="0"),
    "classify with own classifiers": classify(PICTURE, classifier_ids="", owners="me"),
    "classify by built-in classifiers": classify(PICTURE, classifier_ids="default,food,explicit"),
    "classify a zip": classify(("z.zip", build_zip({"a.png": png(), "b.txt": b"text", "c/d.png": png()[:-40]}))),
    "classify by URL": fetch("good"),
    "classify by GET": lambda scene: scene.get(
        "/v3/classify", params={**VERSION, "url": f"{scene.web}/good", "classifier_ids": scene.ids["birds"]}
    ),
    "classify by parameters": lambda scene: scene.client.classify(
        PICTURE, parameters=json.dumps({"classifier_ids": [scene.ids["birds"]], "threshold": 0.9})
    ),
    "core_ml_model": get("/v3/classifiers/{birds}/core_ml_model"),
    "onnx_model": get("/v3/classifiers/{birds}/onnx_model"),
    "head of details": on("HEAD", "birds"),
    "create": create("created"),
    "retrain": lambda scene: scene.client.retrain(scene.client.ready("again"), MORE_STORKS),
    "delete": on("DELETE", "deleted"),
    "delete again": on("DELETE", "deleted"),
    "user data": lambda scene: scene.client.http.delete("/v3/user_data", params={**VERSION, "customer_id": "abc"}),
    "user data of another tenant": lambda scene: connect(scene.gateway, scene.stage, "bert", "other").http.delete(
        "/v3/user_data", params={**VERSION, "customer_id": "abc"}
    ),
    "token": token(grant_type=KEY_GRANT, apikey=OTHER_KEY),
    "refreshed token": refresh,
    "bearer token": with_bearer,
    "liveness": get("/livez"),
    "document": get("/openapi.json"),
    # Credentials.
    "no credentials": lambda scene: httpx.get(f"{scene.gateway.address}/v3/classifiers{QUERY}"),
    "wrong password": lambda scene: httpx.get(f"{scene.gateway.address}/v3/classifiers{QUERY}", auth=("anna", "wrong")),
    "wrong token": get("/v3/classifiers", headers={"Authorization": "Bearer x.y.z"}),
    "another scheme": get("/v3/classifiers", headers={"Authorization": "Digest x"}),
    "unknown API key": token(grant_type=KEY_GRANT, apikey="nobody's"),
    "no API key": token(grant_type=KEY_GRANT),
    "wrong grant": token(grant_type="password"),
    "wrong refresh token": token(grant_type="refresh_token", refresh_token="x"),
    "token form as JSON": lambda scene: httpx.post(f"{scene.gateway.address}/identity/token", json={}),
    "token form too large": token(grant_type=KEY_GRANT, apikey="x" * 17_000),
    "token by GET": lambda scene: httpx.get(f"{scene.gateway.address}/identity/token"),
    # Addresses and fields.
    "unknown address": lambda scene: httpx.get(f"{scene.gateway.address}/v2/classifiers"),
    "unknown address of the API": get("/v3/models"),
    "withdrawn": get("/v3/detect_faces"),
    "withdrawn below": get("/v3/collections/x"),
    "wrong method": lambda scene: scene.client.http.put("/v3/classifiers"),
    "wrong method of one classifier": on("PATCH", "birds"),
    "wrong method of liveness": lambda scene: scene.client.http.post("/livez"),
    "no version": get("/v3/classifiers", params={"version": ""}),
    "wrong version": get("/v3/classifiers", params={"version": "2018-13-19"}),
    "wrong verbose": get("/v3/classifiers", params={**VERSION, "verbose": "maybe"}),
    "wrong threshold": classify(PICTURE, threshold="2"),
    "wrong owners": classify(PICTURE, owners="you"),
    "no customer": lambda scene: scene.client.http.delete("/v3/user_data"),
    "unknown classifier": get("/v3/classifiers/nothing_1"),
    "odd classifier": get("/v3/classifiers/a%2Fb"),
    "too many query fields": raw("GET", "/v3/classifiers" + QUERY + "&a=%41" * 1000),
    **{
        f"parameters {what}": with_parameters(text)
        for what, text in {
            "cut off": '{"threshold": ',
            "as a list": "[1]",
            "with NaN": '{"threshold": NaN}',
            "nested too deeply": "[" * 200_000,
            "of another kind": '{"owners": 3}',
            "of another kind of threshold": '{"threshold": true}',
            "with a surrogate": '{"url": "\\ud800"}',
        }.items()
    },
    # Bodies.
    "no form": lambda scene: scene.client.http.post("/v3/classify", content=b"{}", headers={"Content-Type": "text/plain"}),
    "no boundary": lambda scene: scene.client.http.post(
        "/v3/classify", content=b"x", headers={"Content-Type": "multipart/form-data"}
    ),
    "odd boundary": raw(
        "POST", "/v3/classify" + QUERY, "Content-Type: multipart/form-data; boundary=ü", "Content-Length: 1", body=b"x"
    ),
    "another boundary": raw(*FORM_HEAD, "Content-Length: 10", body=b"--OTHER\r\n "),
    "cut off in the form": raw(
        *FORM_HEAD, "Content-Length: 60", body=b'--BOUNDARY\r\nContent-Disposition: form-data; name="url"\r\n\r\n12'
    ),
    "damaged form": raw(*FORM_HEAD, "Content-Length: 30", body=b"--BOUNDARY\r\nno header\r\n\r\nxxxxxx"),
    "part without a name": part("Content-Disposition: form-data"),
    "part without a disposition": part("Content-Type: text/plain"),
    "part of a large head": part(f'Content-Disposition: form-data; name="{"x" * 9000}"'),
    "text that is not UTF-8": part('Content-Disposition: form-data; name="url"', b"\xff\xfe"),
    "text above 1 MB": part('Content-Disposition: form-data; name="url"', b"x" * 1_100_000),
    "too many parts": lambda scene: scene.post(
        *((f'Content-Disposition: form-data; name="p{index}"', b"x") for index in range(1001))
    ),
    "too many form fields": lambda scene: scene.client.http.post(
        "/v3/classify", content=b"a&" * 2000, headers={"Content-Type": "application/x-www-form-urlencoded"}
    ),
    "urlencoded body too large": lambda scene: scene.client.http.post(
        "/v3/classify", content=b"a" * 1_100_000, headers={"Content-Type": "application/x-www-form-urlencoded"}
    ),
    "body cut off": raw(*FORM_HEAD, "Content-Length: 500", body=b"--BOUNDARY\r\n", finish=True),
    "chunked body cut off": raw(
        "POST",
        "/v3/classify" + QUERY,
        "Content-Type: application/x-www-form-urlencoded",
        "Transfer-Encoding: chunked",
        body=b"a\r\nurl=http:/\r\n",
        finish=True,
    ),
    "body that stops arriving": stopped,
    "length above the limit of classify": raw(*FORM_HEAD, "Content-Length: 200000000"),
    "length above the limit of create": raw(
        "POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 300000000"
    ),
    "length that is not a number": raw(*FORM_HEAD, "Content-Length: x"),
    "nonsense": lambda scene: exchange(scene.gateway, b"nonsense\r\n\r\n"),
    "address too long": lambda scene: exchange(scene.gateway, b"GET /" + b"x" * 100_000),
    # Images.
    "no images": classify(),
    "empty image": classify(("a.png", b"")),
    "text as image": classify(("notes.txt", b"text")),
    "one image of two": classify(PICTURE, ("notes.txt", b"text")),
    "image cut off": classify(("a.png", png()[:-40])),
    "image too small": classify(("a.png", png(size=(4, 4)))),
    "image cut off, by default": classify(("a.png", png()[:-40]), classifier_ids="default"),
    "image too small, by default": classify(("a.png", png(size=(4, 4))), classifier_ids="default"),
    "image too large": classify(("a.png", png() + bytes(11 << 20))),
    "image of too many pixels": classify(("a.png", plain((1,), mode="1", size=(11_000, 10_000))), classifier_ids="default"),
    "empty zip": classify(("z.zip", build_zip({}))),
    "damaged zip": classify(("z.zip", build_zip({"a.png": png()})[:-30])),
    "damaged zip next to an image": classify(PICTURE, ("z.zip", build_zip({"a.png": png()})[:-30])),
    "zip of too many entries": classify(("z.zip", build_zip({f"{index}.txt": b"" for index in range(10_100)}))),
    "more than 20 images": classify(*((f"{index}.png", png(index, (12, 12))) for index in range(22))),
    # Classifiers that cannot answer.
    "unknown ids": classify(PICTURE, classifier_ids="x_1,y_2"),
    "an unknown id": lambda scene: scene.classify(PICTURE, classifier_ids=f"x_1,{scene.ids['birds']}"),
    "one in training": lambda scene: scene.classify(PICTURE, classifier_ids=scene.ids["training"]),
    "one that failed": lambda scene: scene.classify(PICTURE, classifier_ids=scene.ids["failed"]),
    "training and failed next to one that answers": lambda scene: scene.classify(
        PICTURE, classifier_ids=",".join(scene.ids[name] for name in ("training", "failed", "birds"))
    ),
    "no own classifiers": lambda scene: connect(scene.gateway, scene.stage, "bert", "other").classify(PICTURE, owners="me"),
    "full queue": refused_by_server(503, "QueueFull"),
    "server that is not ready": refused_by_server(503, "NotReady"),
    "server that is gone": kill_server_and_classify,
    "slow server": impatient,
    # URLs.
    **{f"URL of {name}": fetch(name) for name in ("page", "zip", "large", "cut", "empty", "loop", "nothing", "gzip")},
    **{
        f"URL {url}": classify(url=url)
        for url in (
            "ftp://example.org/",
            "http://",
            "http://10.0.0.1/a.png",
            "http://nothing.invalid/",
            "http://a.svc/",
            "x" * 9000,
        )
    },
    "URL of a port that is closed": lambda scene: scene.classify(url=f"{scene.web.rpartition(':')[0]}:1/"),
    # Creating and retraining.
    **{f"create: {refusal.what}": refused(refusal) for refusal in REFUSALS if refusal.what not in LONG},
    "create: text in place of a zip": create(files=[("a_positive_examples", b"a.zip"), TWO_SETS[1]]),
    "create: control character in the name": create("a\x07b"),
    "create: parts that mean nothing": create(files=[("owls", ("o.zip", examples(3)))]),
    "retrain: nothing": lambda scene: scene.client.retrain(scene.ids["birds"], [("other", b"x")]),
    "retrain: in training": lambda scene: scene.client.retrain(scene.ids["training"], MORE_STORKS),
    "retrain: published weights": lambda scene: scene.client.retrain(scene.ids["published"], MORE_STORKS),
    "retrain: made by a manifest": lambda scene: scene.client.retrain(scene.ids["manifest"], MORE_STORKS),
    "retrain: unknown": lambda scene: scene.client.retrain("nothing_1", MORE_STORKS),
    "retrain: opted out": lambda scene: scene.client.retrain(
        scene.client.create("once", headers={"X-Watson-Learning-Opt-Out": "1"}).json()["classifier_id"], MORE_STORKS
    ),
    "retrain: changes too fast": changing_too_fast,
    "retrain: definition lost": stored_elsewhere,
    "delete: made by a manifest": on("DELETE", "manifest"),
    "download: in training": get("/v3/classifiers/{training}/core_ml_model"),
    "download: failed": get("/v3/classifiers/{failed}/onnx_model"),
    "download: no export": lambda scene: scene.get(f"/v3/classifiers/{scene.client.ready('plain')}/core_ml_model"),
    "download: no ONNX export": lambda scene: scene.get(f"/v3/classifiers/{scene.client.ready('plain')}/onnx_model"),
    # Limits, and the gateway's dependencies.
    "quota of requests": twice_limited(quota_requests_per_second=1),
    "quota of classifiers": lambda scene: scene.limited(quota_classifiers=1).create("more"),
    "quota of stored examples": lambda scene: scene.limited(quota_stored_megabytes=1).create(
        "more", [(name, (file, data + bytes(700_000))) for name, (file, data) in TWO_SETS]
    ),
    "quota of uploads": large_upload,
    "ResourceQuota": lambda scene: scene.failing(
        "create_error", QuotaError(403, "exceeded quota: count/classifiers=5", "Forbidden"), scene.client.create
    ),
    "refused by Kubernetes": lambda scene: scene.failing(
        "create_error", InvalidError(422, "spec.classes: too long", "Invalid"), scene.client.create
    ),
    "namespace missing": lambda scene: scene.failing(
        "create_error", NotFoundError(404, 'namespaces "team-a" not found', "NotFound"), scene.client.create
    ),
    "CRD missing": lambda scene: scene.failing(
        "create_error", NotFoundError(404, "the server could not find the requested resource", "NotFound"), scene.client.create
    ),
    "gateway fault": lambda scene: scene.failing("create_error", RuntimeError("a fault"), scene.client.create),
    "Kubernetes unreachable": lambda scene: scene.unreachable(lambda: scene.client.http.get("/v3/classifiers")),
}


DESCRIPTION = re.compile(rb"\x12.\xa2\x06.\n.(?=[^\n]*made with Ocelli$)", re.DOTALL)
"""What a Core ML file has in front of its description: field numbers and lengths."""


def normalize(scene: Scene, text: str) -> str:
    text = re.sub(r"\b([A-Za-z0-9]{1,40})_(\d{2,10})\b", r"\1_N", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text)
    text = text.replace(scene.web, "http://WEB").replace(scene.web.rpartition(":")[0], "http://WEB")
    text = re.sub(r"revision [0-9a-f]{10}", "revision R", text)
    text = re.sub(r'"(access_token|refresh_token)":\s?"[^"]+"', r'"\1": "TOKEN"', text)
    text = re.sub(r'"expiration":\s?\d+', '"expiration": 0', text)
    return re.sub(r"Try again in \d+ seconds", "Try again in N seconds", text)


def describe(scene: Scene, name: str, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, bytes):
        top, _, content = answer.partition(b"\r\n\r\n")
        status = int(top.split(b" ", 2)[1])
        headers = httpx.Headers([tuple(line.split(": ", 1)) for line in top.decode().split("\r\n")[1:]])  # type: ignore[misc]
    else:
        status, headers, content = answer.status_code, answer.headers, answer.content
    shown = {name: normalize(scene, headers[name]) for name in HEADERS if name in headers}
    if int(shown.get("retry-after", "0")) > 100:
        shown["retry-after"] = "N"
    text = normalize(scene, DESCRIPTION.sub(b" described as ", content).decode())
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = text
    if name == "document":
        body["info"]["version"] = "VERSION"
    return {"status": status, "headers": shown, "body": body}


@pytest.fixture(scope="module")
def answers(scene: Scene) -> dict[str, Any]:
    found = {name: describe(scene, name, request(scene)) for name, request in REQUESTS.items()}
    if os.environ.get("OCELLI_REWRITE_GOLDEN"):
        GOLDEN.write_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120))
    return found


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(GOLDEN.read_text())
    return loaded


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_the_golden_one(name: str, answers: dict[str, Any], golden: dict[str, Any]) -> None:
    assert answers[name] == golden.get(name), "run `make golden` and review the difference"


def test_no_golden_answer_is_left_over(golden: dict[str, Any]) -> None:
    assert list(golden) == list(REQUESTS)
