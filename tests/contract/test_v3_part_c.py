"""Part C of the REST contract, bad inputs: one test for each of its rows, each with every case that the row names."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from tests.gateway_harness.images import build_zip, encode, examples, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, body_of, exchange, head, multipart, status_of
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance, Stage
from tests.gateway_harness.v3_client import TWO_SETS, VERSION, V3Client, assert_error, basic, connect

MEGABYTE = 1024 * 1024
QUERY = "?version=2018-03-19"
GOOD = examples(7)


@dataclass(kw_only=True)
class Scene:
    """A gateway with classifiers in every state."""

    stage: Stage
    gateway: GatewayInstance
    client: V3Client
    limited: V3Client
    """Of a gateway with a limit on requests."""
    web: str
    """Address of a web server that the gateway may fetch from."""
    ready: str = field(init=False)
    training: str = field(init=False)
    failed: str = field(init=False)
    retraining: str = field(init=False)
    opted_out: str = field(init=False)
    manifest_made: str = field(init=False)
    serverless: str = field(init=False)
    busy: str = field(init=False)

    def __post_init__(self) -> None:
        client, stage = self.client, self.stage
        self.ready = client.ready("ready")
        self.training = client.created("training")
        self.failed = client.created("failed")
        stage.fail_training(self.failed, "too few examples")
        self.retraining = client.ready("retraining")
        client.retrain(self.retraining, [positive("crane")])
        self.opted_out = client.create("optedout", headers={"X-Watson-Learning-Opt-Out": "1"}).json()["classifier_id"]
        stage.finish_training(self.opted_out)
        self.manifest_made = client.ready("manifest")
        manifest = stage.classifier(self.manifest_made)
        manifest["metadata"]["labels"] = {CLASSIFIER_ID_LABEL: self.manifest_made}
        stage.put_classifier(manifest)
        self.serverless = client.created("serverless")
        (server,) = stage.finish_training(self.serverless)
        stage.kill_server(server)
        stage.remove_pod(server)
        self.busy = client.created("busy")
        (server,) = stage.finish_training(self.busy)
        server.refusal = (429, "QueueFull")

    def raw(self, method: str, target: str, *headers: str, body: bytes = b"", finish: bool = False) -> httpx.Response:
        """A request byte by byte, over a connection of its own."""
        answer = exchange(self.gateway, head(method, target + QUERY, *headers, "Connection: close") + body, finish=finish)
        lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        sent = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return httpx.Response(status_of(answer), headers=sent, json=body_of(answer))

    def get(self, path: str, headers: dict[str, str] | None = None, **params: str) -> httpx.Response:
        """Without the client's own credentials and version."""
        return httpx.get(self.gateway.address + path, params=params, headers=headers, timeout=30)

    def classify(self, *images: tuple[str, bytes], **fields: str) -> httpx.Response:
        return self.client.classify(*images, **{"classifier_ids": self.ready, **fields})

    def form(self, path: str, content_type: str, body: bytes) -> httpx.Response:
        return self.client.http.post(path, content=body, headers={"Content-Type": content_type})


Send = Callable[[Scene], httpx.Response]


@dataclass(frozen=True, kw_only=True)
class Case:
    """An input and what is answered."""

    what: str
    send: Send
    status: int
    error_id: str | None = None
    image_error: bool = False
    """The answer is one of classify, each image with this error."""
    warning: str | None = None
    header: str | None = None
    """A header that the answer must have."""
    words: str = ""


def positive(name: str, data: bytes = GOOD) -> tuple[str, tuple[str, bytes]]:
    return (f"{name}_positive_examples", (f"{name}.zip", data))


NEGATIVE = ("negative_examples", ("none.zip", examples(8)))


def encrypted() -> bytes:
    data = bytearray(GOOD)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    return bytes(data)


def zip_of(entries: dict[str, bytes], usable: int = 10) -> bytes:
    return build_zip({**entries, **{f"good{index}.png": png(index, (12, 12)) for index in range(usable)}})


def stored_zip(names: Iterator[str], data: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


def drawn(format_name: str) -> bytes:
    return encode(Image.new("RGB", (40, 40), "red"), format_name)


def text_part(name: str, value: str) -> tuple[str, bytes]:
    return (f'Content-Disposition: form-data; name="{name}"', value.encode())


def flood(scene: Scene) -> httpx.Response:
    """The first refusal of many requests."""
    for _ in range(200):
        response = scene.limited.get("none_1")
        if response.status_code != 404:
            return response
    return response


def grown_body() -> Iterator[bytes]:
    for index in range(4):
        yield f'--BOUNDARY\r\nContent-Disposition: form-data; name="other{index}"\r\n\r\n'.encode()
        for _ in range(40):
            yield bytes(MEGABYTE)
        yield b"\r\n"


def create(*sets: tuple[str, tuple[str, bytes]], name: str | None = "birds") -> Send:
    return lambda scene: scene.client.create(name, sets)


def retrain(identity: Callable[[Scene], str], *sets: tuple[str, tuple[str, bytes]]) -> Send:
    return lambda scene: scene.client.retrain(identity(scene), sets)


def classify(*images: tuple[str, bytes], **fields: str) -> Send:
    return lambda scene: scene.classify(*images, **fields)


def classify_by(identities: Callable[[Scene], str]) -> Send:
    return lambda scene: scene.client.classify(("a.png", png()), classifier_ids=identities(scene))


def url(address: str) -> Send:
    return lambda scene: scene.classify(
        url=address.replace("WEB", scene.web).replace("HOST", str(urlsplit(scene.web).hostname))
    )


def authorized(value: str | None, **query: str) -> Send:
    headers = {} if value is None else {"Authorization": value}
    return lambda scene: scene.get("/v3/classifiers/none_1", headers, **VERSION, **query)


def versioned(version: str | None) -> Send:
    query = {} if version is None else {"version": version}
    return lambda scene: scene.get("/v3/classifiers/none_1", {"Authorization": basic(USER, PASSWORD)}, **query)


def both_forms(content_type: str, body: bytes) -> list[tuple[str, Send]]:
    return [
        (path, lambda scene, path=path: scene.form(path, content_type, body))  # type: ignore[misc]
        for path in ("/v3/classifiers", "/v3/classify")
    ]


def refused(status: int, error_id: str | None, sends: dict[str, Send] | list[tuple[str, Send]], **more: Any) -> list[Case]:
    items = sends.items() if isinstance(sends, dict) else sends
    return [Case(what=what, send=send, status=status, error_id=error_id, **more) for what, send in items]


ROWS: dict[str, list[Case]] = {
    "C1/no, malformed or wrong credentials; bad or expired token": refused(
        401,
        "unauthorized",
        {
            "none": authorized(None),
            "malformed": authorized("Basic !!!"),
            "wrong password": authorized(basic(USER, "wrong")),
            "wrong key": authorized(basic("apikey", "wrong")),
            "no token": authorized("Bearer eyJ"),
            "a token of nobody": authorized("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm5hIn0."),
            "wrong api_key": authorized(None, api_key="wrong"),
        },
        header="www-authenticate",
    ),
    "C1/version missing, not a date, impossible": refused(
        400,
        "parameter_error",
        {"missing": versioned(None), "no date": versioned("latest"), "impossible": versioned("2018-13-45")},
        words="version",
    ),
    "C1/unknown path / known path with another method": [
        *refused(404, "not_found", {"unknown": lambda scene: scene.client.http.get("/v3/nothing")}),
        *refused(405, None, {"method": lambda scene: scene.client.http.put("/v3/classifiers")}, header="allow"),
    ],
    "C1/a body that should be multipart but is not, lacks its": refused(
        400,
        None,
        [
            *both_forms("application/json", b"{}"),
            *both_forms("multipart/form-data", b"--x\r\n"),
            *both_forms("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nbi'),
            (
                "shorter than it says",
                lambda scene: scene.raw(
                    "POST",
                    "/v3/classifiers",
                    f"Content-Type: {MULTIPART_TYPE}",
                    "Content-Length: 5000",
                    body=b"--BOUNDARY\r\n",
                    finish=True,
                ),
            ),
        ],
    ),
    "C1/declared Content-Length above the limit of the call (256": [
        Case(
            what=path,
            send=lambda scene, path=path, limit=limit: scene.raw(  # type: ignore[misc]
                "POST", path, f"Content-Type: {MULTIPART_TYPE}", f"Content-Length: {limit * MEGABYTE + 1}"
            ),
            status=413,
            error_id="limit_exceeded",
        )
        for path, limit in (("/v3/classifiers", 256), ("/v3/classify", 110))
    ],
    "C1/body of undeclared length that grows past the limit": refused(
        413,
        "limit_exceeded",
        {
            "grown": lambda scene: scene.client.http.post(
                "/v3/classify", content=grown_body(), headers={"Content-Type": MULTIPART_TYPE}
            )
        },
    ),
    "C1/more than 1000 parts": refused(
        400,
        "limit_exceeded",
        {
            path: lambda scene, path=path: scene.form(  # type: ignore[misc]
                path, MULTIPART_TYPE, multipart([text_part(f"p{index}", "x") for index in range(1001)])
            )
            for path in ("/v3/classifiers", "/v3/classify")
        },
    ),
    "C1/too many requests, if a limit is configured": refused(429, "limit_exceeded", {"flood": flood}, header="retry-after"),
    "C2/create: name missing, blank or too long": refused(
        400,
        "parameter_error",
        {
            "missing": create(*TWO_SETS, name=None),
            "blank": create(*TWO_SETS, name=" \t "),
            "too long": create(*TWO_SETS, name="n" * 129),
        },
        words="name",
    ),
    "C2/create: fewer than two example sets (none; one positive": refused(
        400,
        "parameter_error",
        {
            "none": create(("other", ("other.txt", b"text"))),
            "one positive alone": create(positive("owl")),
            "negatives alone": create(NEGATIVE),
        },
    ),
    "C2/retrain: no example set": refused(
        400,
        "parameter_error",
        {
            "a name alone": lambda scene: scene.client.http.post(
                f"/v3/classifiers/{scene.ready}", data={"name": "x"}, files=[("other", ("o.txt", b"x"))]
            )
        },
    ),
    "C2/suspend is neither true nor false": refused(
        400,
        "parameter_error",
        {
            "create": create(("suspend", (None, b"1")), *TWO_SETS),  # type: ignore[arg-type]
            "retrain": retrain(lambda scene: scene.ready, ("suspend", (None, b"yes")), positive("owl")),  # type: ignore[arg-type]
        },
        words='"suspend"',
    ),
    "C2/class name empty, too long, or with a forbidden character": refused(
        400,
        "parameter_error",
        {
            "empty": create(positive(""), NEGATIVE),
            "too long": create(positive("c" * 129), NEGATIVE),
            **{f"with {character}": create(positive(f"a{character}b"), NEGATIVE) for character in "$*-{}|/'`[]"},
            "in a retrain": retrain(lambda scene: scene.ready, positive("a*b")),
        },
        words="class name",
    ),
    "C2/the same class twice in one request": refused(
        400, "parameter_error", {"owl": create(positive("owl"), positive("owl", examples(3)))}, words='"owl"'
    ),
    "C2/example set not a zip, damaged, cut off, empty or encrypted": refused(
        400,
        "input_error",
        {
            what: create(positive("owl", data), NEGATIVE)
            for what, data in {
                "not a zip": b"just words",
                "damaged": GOOD[:40] + bytes(60) + GOOD[100:-60] + bytes(60),
                "cut off": GOOD[:-30],
                "empty": b"",
                "empty zip": build_zip({}),
                "encrypted": encrypted(),
            }.items()
        },
        words="owl_positive_examples",
    ),
    "C2/fewer than 10 usable images in a zip (positive or negative)": refused(
        400,
        "input_error",
        {
            "positive": create(positive("owl", examples(1, 9)), NEGATIVE),
            "negative": create(positive("owl"), ("negative_examples", ("none.zip", examples(2, 9)))),
            "unusable ones do not count": create(positive("owl", zip_of({"a.txt": b"text"}, usable=9)), NEGATIVE),
        },
        words="10",
    ),
    "C2/some unusable entries, 10 or more usable ones": [
        Case(
            what="skipped",
            send=create(positive("owl", zip_of({"a.txt": b"text", "b.gif": drawn("GIF")})), NEGATIVE),
            status=200,
        )
    ],
    "C2/one zip above 100 MB": refused(
        413, "limit_exceeded", {"zip": create(positive("owl", GOOD + bytes(100 * MEGABYTE)), NEGATIVE)}, words="100 MB"
    ),
    "C2/more than 10,000 images in a zip": refused(
        400,
        "limit_exceeded",
        {"zip": create(positive("owl", stored_zip((f"{i}.png" for i in range(10_001)), png(1, (10, 10))[:40])), NEGATIVE)},
    ),
    "C2/retrain: unknown ID": refused(404, "not_found", {"unknown": retrain(lambda scene: "none_1", positive("owl"))}),
    "C2/retrain while training; retrain of an opted-out classifier": [
        *refused(400, "classifier_not_ready", {"training": retrain(lambda scene: scene.training, positive("owl"))}),
        *refused(400, None, {"opted out": retrain(lambda scene: scene.opted_out, positive("owl"))}, words="opt"),
    ],
    "C2/retrain while retraining": [
        Case(what="retraining", send=retrain(lambda scene: scene.retraining, positive("stork")), status=200)
    ],
    "C2/more than 500 classes or 2,000 example sets in all": refused(
        400,
        "limit_exceeded",
        {"classes": create(*(positive(f"c{index}", examples(1)) for index in range(501)))},
        words="500",
    ),
    "C2/retrain or delete of a classifier that was made by a": refused(
        409,
        "conflict",
        {
            "retrain": retrain(lambda scene: scene.manifest_made, positive("owl")),
            "delete": lambda scene: scene.client.delete(scene.manifest_made),
        },
        words="manifest",
    ),
    "C3/neither image nor URL; empty images_file": refused(
        400,
        None,
        {
            "nothing": lambda scene: scene.client.http.post("/v3/classify"),
            "nothing by GET": lambda scene: scene.client.http.get("/v3/classify"),
            "empty file": classify(("a.png", b"")),
        },
        words="No images were specified.",
    ),
    "C3/not an image (text, BMP, WebP, SVG, PDF, ...)": refused(
        400,
        "input_error",
        {
            what: classify((what, data))
            for what, data in {
                "text": b"just some words",
                "BMP": drawn("BMP"),
                "WebP": drawn("WEBP"),
                "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>',
                "PDF": b"%PDF-1.4\n%%EOF",
            }.items()
        },
        image_error=True,
    ),
    "C3/image that cannot be decoded; too few or too many pixels": [
        *refused(
            400,
            "input_error",
            {
                "cut off": classify(("a.png", png()[:-200]), classifier_ids="default"),
                "too few": classify(("a.png", png(1, (9, 50))), classifier_ids="default"),
            },
            image_error=True,
        ),
        *refused(
            400,
            "limit_exceeded",
            {"too many": classify(("a.png", encode(Image.new("1", (10001, 10000)), "PNG")), classifier_ids="default")},
            image_error=True,
        ),
    ],
    "C3/image above 10 MB, alone": refused(
        413, "limit_exceeded", {"png": classify(("a.png", png() + bytes(10 * MEGABYTE)))}, image_error=True
    ),
    "C3/zip damaged, empty or without any image; the only source": refused(
        400,
        "input_error",
        {
            "damaged": classify(("z.zip", b"PK\x03\x04garbage")),
            "empty": classify(("z.zip", build_zip({}))),
            "no image": classify(("z.zip", build_zip({".DS_Store": b"x", "__MACOSX/a.png": png()}))),
        },
    ),
    "C3/damaged zip together with a url that works": [
        Case(
            what="both",
            send=lambda scene: scene.classify(("z.zip", b"PK\x03\x04garbage"), url=f"{scene.web}/good.png"),
            status=200,
            warning="invalid_zip",
        )
    ],
    "C3/zip above 100 MB": refused(413, "limit_exceeded", {"zip": classify(("z.zip", GOOD + bytes(100 * MEGABYTE)))}),
    "C3/zip with more than 20 images": [
        Case(
            what="zip",
            send=classify(("z.zip", build_zip({f"{index}.png": png(index, (12, 12)) for index in range(21)}))),
            status=200,
            warning="limit_reached",
        )
    ],
    "C3/some images of a zip bad": [
        Case(what="zip", send=classify(("z.zip", build_zip({"a.png": png(), "b.txt": b"words"}))), status=200)
    ],
    "C3/threshold not a number, NaN, infinite, below 0 or above 1": refused(
        400,
        "parameter_error",
        {text: classify(("a.png", png()), threshold=text) for text in ("high", "nan", "inf", "-inf", "-0.1", "1.01", "1e999")},
        words="threshold",
    ),
    "C3/owners with anything but IBM and me (case ignored)": refused(
        400,
        "parameter_error",
        {text: classify(("a.png", png()), owners=text, classifier_ids="") for text in ("you", "me,you", "IBM;me")},
        words="owners",
    ),
    "C3/parameters not a JSON object": refused(
        400,
        "parameter_error",
        {text: classify(("a.png", png()), parameters=text) for text in ("{", "[]", "1", '"text"', "null", "nothing")},
        words="parameters",
    ),
    "C3/all classifier_ids unknown / some unknown": [
        *refused(
            404,
            "not_found",
            {"all": classify(("a.png", png()), classifier_ids="none_1,none_2")},
            image_error=True,
            words="None of the requested classifier ids were found: none_1, none_2",
        ),
        Case(
            what="some",
            send=classify_by(lambda scene: f"none_1,{scene.ready}"),
            status=200,
            warning="unknown_classifier_ids",
        ),
    ],
    "C3/classifier still training, or failed with no old": refused(
        400,
        "classifier_not_ready",
        {
            "training": classify_by(lambda scene: scene.training),
            "failed": classify_by(lambda scene: scene.failed),
        },
        image_error=True,
    ),
    "C3/the same, together with others that can answer": [
        Case(
            what="training",
            send=classify_by(lambda scene: f"{scene.training},{scene.failed},{scene.ready}"),
            status=200,
            warning="classifier_not_ready",
        )
    ],
    "C3/url malformed, other scheme, unreachable, not 200, not an": refused(
        400,
        None,
        {
            "malformed": url("http://"),
            "words": url("no address at all"),
            "other scheme": url("ftp://example.org/owl.jpg"),
            "file": url("file:///etc/passwd"),
            "unreachable": url("http://HOST:1/owl.jpg"),
            "not 200": url("WEB/missing.png"),
            "not an image": url("WEB/page.html"),
            "a zip": url("WEB/images.zip"),
            "too large": url("WEB/large.png"),
            "private": url("http://10.0.0.1/owl.jpg"),
            "loopback": url("http://localhost:9/owl.jpg"),
            "redirected to a private address": url("WEB/private"),
        },
        image_error=True,
        words="URL Fetcher error: ",
    ),
    "C3/the classifier is ready but no server of it answers (lost": [
        *refused(503, "unavailable", {"lost": classify_by(lambda scene: scene.serverless)}, header="retry-after"),
        *refused(429, "limit_exceeded", {"queue full": classify_by(lambda scene: scene.busy)}, header="retry-after"),
    ],
    "C4/get, delete, Core ML of an unknown ID, or one of strange": refused(
        404,
        "not_found",
        {
            f"{method} {target[:20]}": lambda scene, method=method, target=target: scene.raw(  # type: ignore[misc]
                method, f"/v3/classifiers/{target}", "Content-Length: 0"
            )
            for identity in ("none_1", "..%2F", "x" * 5000, "ü_1", "%00", "%FF_1")
            for method, target in (("GET", identity), ("DELETE", identity), ("GET", f"{identity}/core_ml_model"))
        },
    ),
    "C4/list with verbose neither true nor false": refused(
        400,
        "parameter_error",
        {
            text: lambda scene, text=text: scene.client.http.get(  # type: ignore[misc]
                "/v3/classifiers", params={**VERSION, "verbose": text}
            )
            for text in ("yes", "1", "truee")
        },
        words="verbose",
    ),
    "C4/user data without customer_id": refused(
        400,
        "parameter_error",
        {
            "missing": lambda scene: scene.client.http.delete("/v3/user_data"),
            "blank": lambda scene: scene.client.http.delete("/v3/user_data", params={**VERSION, "customer_id": " "}),
        },
        words="customer_id",
    ),
}


def build_web() -> Starlette:
    """What the gateway fetches from."""

    async def good(_: Request) -> Response:
        return Response(png(), media_type="text/plain")

    async def page(_: Request) -> Response:
        return Response("<html></html>", media_type="image/png")

    async def archive(_: Request) -> Response:
        return Response(build_zip({"a.png": png()}))

    async def large(_: Request) -> Response:
        return Response(png() + bytes(10 * MEGABYTE))

    async def private(_: Request) -> Response:
        return RedirectResponse("http://169.254.169.254/owl.jpg")

    routes = {"good.png": good, "page.html": page, "images.zip": archive, "large.png": large, "private": private}
    return Starlette(routes=[Route(f"/{path}", answer) for path, answer in routes.items()])


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Iterator[Scene]:
    web = stage.start_web_server(build_web())
    gateway = stage.start_gateway(url_allowed_networks=f"{urlsplit(web).hostname}/32")
    client = connect(gateway, stage)
    limited = connect(stage.start_gateway(quota_requests_per_second=5), stage)
    yield Scene(stage=stage, gateway=gateway, client=client, limited=limited, web=web)
    client.http.close()
    limited.http.close()


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.contract_row(row)) for row in ROWS])
def test_the_row_holds(scene: Scene, row: str) -> None:
    for case in ROWS[row]:
        assert_case(case, case.send(scene))


def assert_case(case: Case, response: httpx.Response) -> None:
    assert response.status_code == case.status, f"{case.what}: {response.status_code} {response.text[:500]}"
    if case.status >= 400:
        assert_error(response, case.status, case.error_id)
        assert case.words in response.json()["error"], f"{case.what}: {response.json()['error']}"
    if case.header is not None:
        assert response.headers[case.header], case.what
    if case.image_error:
        body = response.json()
        assert body["images"], case.what
        assert {image["error"]["code"] for image in body["images"]} == {case.status}, case.what
        assert all(image["classifiers"] == [] and image["error"]["description"] for image in body["images"]), case.what
    if case.warning is not None:
        assert [item["warning_id"] for item in response.json()["warnings"]] == [case.warning], case.what
