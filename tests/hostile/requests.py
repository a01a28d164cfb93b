"""Hostile and unusual requests to a gateway without models: a function for each kind, with its correct answers."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocelli_gateway.colors import name_colors
from tests.gateway_harness.v3_client import basic
from tests.hostile.pictures import Picture, draw_colour, draw_picture, encode, hundred_megapixels
from tests.hostile.zips import draw_zip, pack
from tests.integration.gateway.gateway_process import PASSWORD, USER
from tests.integration.gateway.mutations import Mutator

VERSION = "version=2018-03-19"
BOUNDARY = b"BOUNDARY"
IMAGES_LIMIT = 20
LEAST_EXAMPLES = 10
_SAME_COLOUR = 2
"""The difference of a colour that rounding can cause."""

Document = dict[str, Any]
Check = Callable[[Document], str | None]
"""The error in the body of an answer, or None."""
Part = tuple[bytes, bytes]
"""Its headers, and its bytes."""


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One request."""

    kind: str
    request: bytes
    statuses: frozenset[int]
    """The correct statuses; if empty, any below 500."""
    check: Check = lambda body: None
    """Of a 200."""
    refusal: Check = lambda body: None
    """Of any other answer."""
    finish: bool = False
    """Whether the client then closes its half of the connection."""
    answers: int = 1
    creates: bool = False


def part(name: str | bytes, data: bytes, filename: bytes | None = None) -> Part:
    raw = name if isinstance(name, bytes) else name.encode()
    head = b'Content-Disposition: form-data; name="' + raw + b'"'
    return (head if filename is None else head + b'; filename="' + filename + b'"'), data


def form(parts: Iterable[Part], *, preamble: bytes = b"") -> bytes:
    body = b"".join(b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return preamble + body + b"--" + BOUNDARY + b"--\r\n"


def ask(
    method: str | bytes, target: str | bytes, *headers: str, body: bytes | None = None, credentials: str | None = ""
) -> bytes:
    """The bytes of a request, after which the connection is closed. Empty credentials are the right ones, None are none."""
    first = b" ".join(item.encode() if isinstance(item, str) else item for item in (method, target)) + b" HTTP/1.1"
    shown = basic(USER, PASSWORD) if credentials == "" else credentials
    lines = ["Host: gateway", "Connection: close", *headers]
    lines += [] if shown is None else [f"Authorization: {shown}"]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return first + b"\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + (body or b"")


def post_form(target: str | bytes, parts: Iterable[Part], *headers: str, preamble: bytes = b"") -> bytes:
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}"
    return ask("POST", target, kind, *headers, body=form(parts, preamble=preamble))


def in_chunks(request: bytes) -> bytes:
    """The same, with its body in chunks."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 1000]), body[at : at + 1000]) for at in range(0, len(body), 1000))
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + chunks + b"0\r\n\r\n"


def says(*words: str) -> Check:
    def check(body: Document) -> str | None:
        missing = [word for word in words if word not in body.get("error", "")]
        return f"the message lacks {missing}: {body.get('error')!r}" if missing else None

    return check


# Classify


def _colour_fault(item: Document, picture: Picture) -> str | None:
    """The error in the answer of `default` for a picture, or None."""
    found = next((answer for answer in item["classifiers"] if answer["classifier_id"] == "default"), None)
    if found is None:
        return f"default does not answer: {item}"
    names = [entry["class"] for entry in found["classes"] if entry["score"] >= 0.5]
    if picture.in_rgb is not None:
        near = [np.clip(np.array(picture.in_rgb) + change, 0, 255) for change in (-_SAME_COLOUR, 0, _SAME_COLOUR)]
        right = {name_colors(np.full((8, 8, 3), colour, dtype=np.uint8))[0].class_name for colour in near}
    elif picture.colours == {"*"}:
        return None
    else:
        right = set(picture.colours)
    return None if right & set(names) else f"the colours are {names}, right is one of {sorted(right)} (RGB {picture.in_rgb})"


def _check_pictures(pictures: list[Picture]) -> Check:
    def check(body: Document) -> str | None:
        if body["images_processed"] != len(pictures) or len(body["images"]) != len(pictures):
            return f"{body['images_processed']} images are said to be processed, of {len(pictures)}"
        for item, picture in zip(body["images"], pictures, strict=True):
            if "error" in item:
                if picture.colours and not picture.may_be_refused:
                    return f"a {picture.kind} that is right is refused: {item}"
            elif not picture.colours:
                return f"a {picture.kind} that can't be decoded has an answer: {item}"
            elif fault := _colour_fault(item, picture):
                return f"{picture.kind}: {fault}"
        return None

    return check


def _statuses(pictures: list[Picture]) -> frozenset[int]:
    if any(picture.colours and not picture.may_be_refused for picture in pictures):
        return frozenset({200})
    return frozenset({200, 400}) if any(picture.colours for picture in pictures) else frozenset({400})


def _decorated(draw: random.Random, files: list[Part]) -> bytes:
    """A classify request for `default`, as one of the many clients may send it."""
    target, headers, parts, preamble = f"/v3/classify?{VERSION}", [], list(files), b""
    match draw.randrange(14):
        case 0:
            preamble = draw.choice(
                [b"This is a message with multiple parts.\r\n", b"\r\n\r\n", b"x" * 5000 + b"\r\n", b"--\r\n"]
            )
        case 1:
            text = b'\xef\xbb\xbf{"threshold": 0.4, "classifier_ids": ["default"]}'
            parts.append(part("parameters", text, b"p.json"))
        case 2:
            parts.append(part("parameters", b'{"threshold": 7, "owners": ["you"], "threshold": 0.4, "owners": ["IBM"]}'))
        case 3:
            target = draw.choice(["//v3/classify", "/visual-recognition/api//v3/classify/", "/v3/classify/"]) + f"?{VERSION}"
        case 4:
            parts.append(part(draw.choice(["classifier_ids[]", "classifier_ids[0]", "classifier_ids"]), b"default"))
        case 5:
            parts.append(part(draw.choice(["unknown", "😀", "a\u202eb", ""]), draw.randbytes(50)))
        case 6:
            headers.append(draw.choice(["Accept-Language: \u00e9;q=2,*", "Content-Encoding: gzip", "X-Y: " + "z" * 9000]))
        case 7:
            headers.append("Expect: 100-continue")
        case 8:
            parts.append(part("owners[]", b"ibm"))
        case 9:
            parts += [part("threshold", b"0.9"), part("threshold", b"0.4")]
        case 10:
            return in_chunks(post_form(target, parts))
        case 11:
            parts.append(part("url", b"   "))
    return post_form(target, parts, *headers, preamble=preamble)


def _file(draw: random.Random, data: bytes) -> Part:
    names = [b"a.png", b"", b"a\xff.png", "😀.png".encode(), b"\xed\xa0\x80.png", b"..\\..\\x.png", b"a\x07.png", b"x" * 5000]
    name = draw.choice(["images_file", "images_file", "images_file[]"])
    return part(name, data, draw.choice([b"a.png", b"a.png", None, *names]))


def classify_picture(draw: random.Random) -> Hostile:
    picture = draw_picture(draw, heavy=0.02)
    return Hostile(
        kind=f"classify {picture.kind}",
        request=_decorated(draw, [_file(draw, picture.data)]),
        statuses=_statuses([picture]),
        check=_check_pictures([picture]),
    )


def classify_pictures(draw: random.Random) -> Hostile:
    pictures = [draw_picture(draw) for _ in range(draw.randrange(2, 6))]
    return Hostile(
        kind="classify pictures",
        request=_decorated(draw, [_file(draw, picture.data) for picture in pictures]),
        statuses=_statuses(pictures),
        check=_check_pictures(pictures),
    )


def classify_zip(draw: random.Random) -> Hostile:
    name, image = draw_colour(draw)
    count = draw.choice([1, 2, 3, 25])
    found = draw_zip(draw, [encode(image, "PNG")] * count, heavy=0.01)
    right, wrong = Picture(data=b"", colours=frozenset({name})), Picture(data=b"", colours=frozenset())
    # Unusable images come first.
    pictures = [*([wrong] * (found.counted - found.usable)), *([right] * found.usable)][:IMAGES_LIMIT]

    def check(body: Document) -> str | None:
        warned = any(item["warning_id"] == "limit_reached" for item in body.get("warnings", []))
        if warned != (found.counted > IMAGES_LIMIT):
            return f"{found.counted} images, and limit_reached is {warned}"
        return _check_pictures(pictures)(body)

    return Hostile(
        kind="classify zip",
        request=_decorated(draw, [_file(draw, found.data)]),
        statuses=_statuses(pictures) if pictures else frozenset({400}),
        check=check,
        refusal=says(*found.words) if not found.usable else says(),
    )


def picture_and_bad_zip(draw: random.Random) -> Hostile:
    """An unreadable zip does not affect other images."""
    name, image = draw_colour(draw)
    picture = encode(image, "PNG")
    bad = pack([picture])[:-10]

    def check(body: Document) -> str | None:
        fault = _check_pictures([Picture(data=b"", colours=frozenset({name}))])(body)
        warned = any(item["warning_id"] == "invalid_zip" for item in body.get("warnings", []))
        return fault if fault or warned else "no warning says that the zip is invalid"

    files = [_file(draw, picture), part("images_file", bad, b"bad.zip")]
    draw.shuffle(files)
    return Hostile(kind="picture and bad zip", request=_decorated(draw, files), statuses=frozenset({200}), check=check)


def _picture_part(draw: random.Random) -> Part:
    return part("images_file", encode(draw_colour(draw)[1], "PNG"), b"a.png")


BAD_FIELDS: tuple[tuple[str, bytes, str], ...] = (
    *(
        ("threshold", value.encode(), "threshold")
        for value in ("NaN", "inf", "1e999", "-1", "1.1", "x", "0x1", "٠.٥", "1_0", "😀")
    ),
    *(("owners", value.encode(), "owners") for value in ("you", "IBM,you", "me;IBM", "\u202eme", "😀", "m\u0000e")),
    *(
        ("parameters", value, "parameters")
        for value in (
            b"x",
            b"[]",
            b'"text"',
            b"null",
            b"{",
            b'{"threshold": NaN}',
            b'{"threshold": [0.5]}',
            b'{"threshold": 0.1, "threshold": "x"}',
            b'{"classifier_ids": ["\\ud800"]}',
            b'{"classifier_ids": {"a": 1}}',
            b'{"classifier_ids": [[["default"]]]}',
            b'{"owners": [1]}',
            b'{"owners": ["\\udfff\\ud800"]}',
            b'{"url": 5}',
            b'{"parameters": []}',
            b'{"a": "\x07"}',
            b'{"threshold": 1' + b"0" * 5000 + b"}",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"\xff\xfe{\0}\0",
            b"\xef\xbb\xbf",
        )
    ),
    *((name, b"\xff\xfe", name) for name in ("threshold", "owners", "classifier_ids", "url")),
    ("threshold", b"\xed\xa0\x80", "threshold"),
)
"""Fields of a classify that are wrong: name, value, and a word of the refusal."""


def bad_field(draw: random.Random) -> Hostile:
    name, value, word = draw.choice(BAD_FIELDS)
    # A document with only a byte order mark counts as absent.
    fine = name == "parameters" and value == b"\xef\xbb\xbf"
    word = word if name != "parameters" or b"threshold" not in value else ""
    return Hostile(
        kind=f"bad field {name}",
        request=post_form(f"/v3/classify?{VERSION}", [_picture_part(draw), part(name, value)]),
        statuses=frozenset({200} if fine else {400}),
        refusal=says(word),
    )


def unknown_ids(draw: random.Random) -> Hostile:
    ids = draw.choice(
        ["none_1", "😀", "a\u202eb", "x" * 5000, "../..", "none_1,none_2", ",".join(f"n_{i}" for i in range(3000)), "\u0001"]
    )
    name = draw.choice(["classifier_ids", "classifier_ids[]", "classifier_ids[0]"])
    field = part(name, ids.encode())
    if name == "classifier_ids" and draw.random() < 0.5:
        field = part("parameters", json.dumps({"classifier_ids": ids.split(",")}).encode())
    file = _picture_part(draw)
    if draw.random() < 0.2:
        file = part("images_file", pack([encode(draw_colour(draw)[1], "PNG")] * 20), b"a.zip")
    return Hostile(
        kind="unknown ids",
        request=post_form(f"/v3/classify?{VERSION}", [file, field]),
        statuses=frozenset({404}),
        refusal=lambda body: None if body.get("images") else "the refusal names no image",
    )


def some_unknown_ids(draw: random.Random) -> Hostile:
    name, image = draw_colour(draw)
    file = part("images_file", encode(image, "PNG"), b"a.png")

    def check(body: Document) -> str | None:
        warned = any(item["warning_id"] == "unknown_classifier_ids" for item in body.get("warnings", []))
        return _colour_fault(body["images"][0], Picture(data=b"", colours=frozenset({name}))) if warned else "no warning"

    request = post_form(f"/v3/classify?{VERSION}", [file, part("classifier_ids", "none_1, 😀,default".encode())])
    return Hostile(kind="some unknown ids", request=request, statuses=frozenset({200}), check=check)


def own_classifiers(draw: random.Random) -> Hostile:
    """There are none that can answer."""
    file = part("images_file", pack([encode(draw_colour(draw)[1], "PNG")] * 20), b"a.zip")
    return Hostile(
        kind="owners=me",
        request=post_form(f"/v3/classify?{VERSION}", [file, part("owners", b"me")]),
        statuses=frozenset({404}),
        refusal=says("No classifiers found"),
    )


def strange_url(draw: random.Random) -> Hostile:
    private = [
        "http://127.0.0.1/",
        "http://[::1]/x",
        "http://0x7f000001/",
        "http://2130706433/a.jpg",
        "http://127.1/",
        "http://10.0.0.1/",
    ]
    private += ["http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/", "http://localhost:1/", "http://168.63.129.16/"]
    bad = [
        "ftp://a/b",
        "file:///etc/passwd",
        "http://",
        "http://a b/",
        "//x",
        "http://[::1",
        "http://a:99999/",
        "😀",
        "http://x" * 2000,
    ]
    bad += ["http://\u0001/", "http://a\r\nX: y/", "javascript:1", "http://😀/", "http://.../", "http://xn--/", "http://%00/"]
    url = draw.choice(private + bad).encode()
    if draw.random() < 0.5:
        request = post_form(f"/v3/classify?{VERSION}", [part("url", url)])
    else:
        request = ask("GET", f"/v3/classify?{VERSION}&url=".encode() + _quoted(url))
    return Hostile(kind="strange URL", request=request, statuses=frozenset({400}), refusal=says("URL Fetcher error: "))


def _quoted(text: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in text)


def large_file(draw: random.Random) -> Hostile:
    """More than 10 MB, and not a zip."""
    picture = encode(draw_colour(draw)[1], "PNG") + bytes(10 * 1024 * 1024)
    return Hostile(
        kind="large file",
        request=post_form(f"/v3/classify?{VERSION}", [part("images_file", picture, b"a.png")]),
        statuses=frozenset({413}),
        refusal=lambda body: None if body.get("images") else "the refusal names no image",
    )


# Create and retrain


def _examples(draw: random.Random) -> list[bytes]:
    return [encode(draw_colour(draw)[1], "PNG") for _ in range(draw.choice([9, 10, 11, 12]))]


def create(draw: random.Random) -> Hostile:
    found = draw_zip(draw, _examples(draw), heavy=0.01)
    good = pack([encode(draw_colour(draw)[1], "PNG")] * LEAST_EXAMPLES)
    classes = draw.choice(
        ["owl", "😀", "日本", "a\u202eb", "e\u0301", "x" * 128, "a b", "ﷺ", "\U0010ffff", "\ufeffa", "null", "a.b"]
    )
    name = draw.choice(["birds", "😀 😀", "x" * 128, "\U0010ffff", "日本", "{}", "%00", "null", "a\\ud800b"])
    parts = [
        part("name", name.encode()),
        part(f"{classes}_positive_examples", found.data),
        part("second_positive_examples", good),
    ]
    if draw.random() < 0.3:
        parts[2] = part("negative_examples", good)
    draw.shuffle(parts)
    usable = found.usable >= LEAST_EXAMPLES

    def check(body: Document) -> str | None:
        shown = {item["class"] for item in body["classes"]} - {"second"}
        return None if (shown, body["name"]) == ({classes}, name) else f"{body}, asked for {classes!r} and {name!r}"

    return Hostile(
        kind="create",
        request=post_form(f"/v3/classifiers?{VERSION}", parts),
        statuses=frozenset({200} if usable else {400}),
        check=check,
        refusal=says(*found.words) if not found.usable else says(),
        creates=True,
    )


BAD_CREATES: tuple[tuple[str, tuple[bytes | None, bytes, bytes]], ...] = (
    ("name", (None, b"a", b"b")),
    ("name", (b"  ", b"a", b"b")),
    ("name", (b"x" * 129, b"a", b"b")),
    ("name", (b"\xff\xfe", b"a", b"b")),
    ("name", (b"\xed\xa0\x80", b"a", b"b")),
    ("class", (b"n", b"a\x07", b"b")),
    ("class", (b"n", b"a*b", b"b")),
    ("class", (b"n", b"", b"b")),
    ("class", (b"n", b"x" * 129, b"b")),
    ("class", (b"n", b"a", b"a")),
    ("class", (b"n", b"a/b", b"b")),
    ("part", (b"n", b"\xff", b"b")),
    ("part", (b"n", b"\xed\xa0\x80", b"b")),
)


def bad_create(draw: random.Random) -> Hostile:
    """An invalid name or class."""
    _, (name, first, second) = draw.choice(BAD_CREATES)
    good = pack([encode(draw_colour(draw)[1], "PNG")] * LEAST_EXAMPLES)
    parts = [] if name is None else [part("name", name)]
    parts += [part(item + b"_positive_examples", good) for item in (first, second)]
    return Hostile(kind="bad create", request=post_form(f"/v3/classifiers?{VERSION}", parts), statuses=frozenset({400}))


def control_character_in_name(draw: random.Random) -> Hostile:
    """Accepted unchanged, or refused, and never changed."""
    name = draw.choice(["a\x01b", "a\x7fb", "a\x00b", "a\x85b", "a\x1b[31mb", "a\u2028b"])
    good = pack([encode(draw_colour(draw)[1], "PNG")] * LEAST_EXAMPLES)
    parts = [part("name", name.encode()), part("a_positive_examples", good), part("negative_examples", good)]
    return Hostile(
        kind="control character in the name",
        request=post_form(f"/v3/classifiers?{VERSION}", parts),
        statuses=frozenset({200, 400}),
        check=lambda body: None if body["name"] == name else f"the name is {body['name']!r} and not {name!r}",
        creates=True,
    )


def too_few_sets(draw: random.Random) -> Hostile:
    good = pack([encode(draw_colour(draw)[1], "PNG")] * LEAST_EXAMPLES)
    parts = draw.choice([[], [part("a_positive_examples", good)], [part("negative_examples", good)], [part("positive", good)]])
    return Hostile(
        kind="too few sets",
        request=post_form(f"/v3/classifiers?{VERSION}", [part("name", b"n"), *parts]),
        statuses=frozenset({400}),
    )


def retrain_unknown(draw: random.Random) -> Hostile:
    identity = draw.choice(
        [b"none_1", "\u00fc".encode(), b"%F0%9F%98%80", b"x" * 5000, b"..%2F..", b"%00", b"a_1%2Fcore_ml_model", b"\xff"]
    )
    parts = [part("a_positive_examples", pack([b"x"]))]
    return Hostile(
        kind="retrain unknown",
        request=post_form(b"/v3/classifiers/" + identity + b"?" + VERSION.encode(), parts),
        statuses=frozenset({404}),
    )


# Addresses, methods, credentials, bodies


def encoded_slash(draw: random.Random) -> Hostile:
    identity = draw.choice(
        ["a_1%2Fcore_ml_model", "a_1%2fonnx_model", "%2F", "..%2F..%2Fetc%2Fpasswd", "a_1%252Fcore_ml_model", "a%5Cb"]
    )
    method = draw.choice(["GET", "DELETE", "POST"])
    if method == "POST":
        request = post_form(f"/v3/classifiers/{identity}?{VERSION}", [part("a_positive_examples", pack([b"x"]))])
    else:
        request = ask(method, f"/v3/classifiers/{identity}?{VERSION}")
    return Hostile(kind="encoded slash", request=request, statuses=frozenset({404}))


def unknown_method(draw: random.Random) -> Hostile:
    method = draw.choice(["BREW", "PROPFIND", "M-SEARCH", "REPORT", "X", "PUT", "PATCH", "OPTIONS", "TRACE", "LOCK", "Q" * 32])
    path = draw.choice(
        ["/v3/classifiers", "/v3/classifiers/a_1", "/v3/classify", "/v3/user_data", "/v3/classifiers/a_1/core_ml_model"]
    )
    return Hostile(
        kind="unknown method",
        request=ask(method, f"{path}?{VERSION}", body=draw.choice([None, b""])),
        statuses=frozenset({405}),
        refusal=says(method),
    )


def strange_token_as_method(draw: random.Random) -> Hostile:
    """A method can consist of letters of any case, digits and signs (RFC 9110)."""
    method = draw.choice(["brew", "get", "Get", "GET1", "G_T", "X" * 33, "M!", "PO.ST"])
    return Hostile(
        kind="strange token as method", request=ask(method, f"/v3/classifiers?{VERSION}"), statuses=frozenset({405, 400})
    )


def unknown_path(draw: random.Random) -> Hostile:
    path = draw.choice(
        ["/v3", "/v3/", "/v3/x", "/v3/collections", "/v3/detect_faces/a", "/v3/recognize_text", "/v3/classifiers/a/b/c"]
    )
    method = draw.choice(["GET", "POST", "DELETE", "BREW"])
    return Hostile(kind="unknown path", request=ask(method, f"{path}?{VERSION}", body=b""), statuses=frozenset({404}))


def strange_id(draw: random.Random) -> Hostile:
    identity = draw.choice(
        [
            b"none_1",
            b"%00",
            b"%ff",
            b"\xff\xfe",
            "😀_1".encode(),
            b"%F0%9F%98%80_1",
            b"a" * 5000,
            b"a_99999999999",
            b"%ED%A0%80",
            b"a b".replace(b" ", b"%20"),
        ]
    )
    tail = draw.choice([b"", b"/core_ml_model", b"/onnx_model", b"/bom", b"/"])
    method = "GET" if b"model" in tail else draw.choice(["GET", "DELETE"])
    return Hostile(
        kind="strange id",
        request=ask(method, b"/v3/classifiers/" + identity + tail + b"?" + VERSION.encode()),
        statuses=frozenset({404}),
    )


def bad_query(draw: random.Random) -> Hostile:
    target, word = draw.choice(
        [
            ("/v3/classifiers", "version"),
            ("/v3/classifiers?version=", "version"),
            ("/v3/classifiers?version=2018-13-45", "version"),
            ("/v3/classifiers?version=%F0%9F%98%80", "version"),
            ("/v3/classifiers?version=%ED%A0%80", "version"),
            ("/v3/classifiers?version=2018-03-1%D9%A9", "version"),
            (f"/v3/classifiers?{VERSION}&verbose=x", "verbose"),
            (f"/v3/classifiers?{VERSION}&verbose=%00", "verbose"),
            (f"/v3/user_data?{VERSION}", "customer_id"),
            (f"/v3/user_data?{VERSION}&customer_id=%20%09", "customer_id"),
            (f"/v3/classify?{VERSION}", "No images were specified."),
            (f"/v3/classify?{VERSION}&url=", "No images were specified."),
            (f"/v3/classifiers?{VERSION}&" + "a=b&" * 1200, "fields"),
        ]
    )
    method = "DELETE" if "user_data" in target else "GET"
    return Hostile(kind="bad query", request=ask(method, target), statuses=frozenset({400}), refusal=says(word))


def good_list(draw: random.Random) -> Hostile:
    target = draw.choice(["/v3/classifiers", "//v3/classifiers/", "/visual-recognition/api/v3/classifiers"])
    query = draw.choice(
        [VERSION, f"{VERSION}&verbose=TRUE", f"{VERSION}&a=%FF&%00=1", f"version=9999-12-31&version={VERSION[8:]}"]
    )
    return Hostile(
        kind="list",
        request=ask("GET", f"{target}?{query}"),
        statuses=frozenset({200}),
        check=lambda body: None if isinstance(body.get("classifiers"), list) else f"no list: {body}",
    )


def user_data_of_unknown(draw: random.Random) -> Hostile:
    customer = draw.choice([b"nobody", "😀".encode(), b"\xff", b"\0", b"x" * 3000, b"a;b", b"\xed\xa0\x80"])
    return Hostile(
        kind="user data of an unknown customer",
        request=ask("DELETE", f"/v3/user_data?{VERSION}&customer_id=".encode() + _quoted(customer)),
        statuses=frozenset({202}),
    )


def bad_credentials(draw: random.Random) -> Hostile:
    none = (
        base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + "." + base64.urlsafe_b64encode(b"{}").decode() + "."
    )
    given = draw.choice(
        [
            None,
            "Basic",
            "Basic !!!",
            "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
            "Bearer",
            "Bearer x.y.z",
            f"Bearer {none}",
            "Digest a=b",
            "Bearer " + "x" * 9000,
            "Basic " + base64.b64encode(b"nocolon").decode(),
        ]
    )
    method, path = draw.choice(
        [("GET", "/v3/classifiers"), ("GET", "/v3/nothing"), ("POST", "/v3/classify"), ("BREW", "/v3/classify")]
    )
    return Hostile(
        kind="bad credentials",
        request=ask(method, f"{path}?{draw.choice([VERSION, ''])}", credentials=given, body=b""),
        statuses=frozenset({401}),
        refusal=says("Unauthorized"),
    )


def bogus_log_in(draw: random.Random) -> Hostile:
    """Answered slowly, or refused if too many wait: each one is checked."""
    guess = draw.randbytes(6).hex()
    if draw.random() < 0.5:
        request = ask("GET", f"/v3/classifiers?{VERSION}", credentials=basic(draw.choice(["apikey", "nobody", "😀"]), guess))
    else:
        request = ask("GET", f"/v3/classifiers?{VERSION}&{draw.choice(['api_key', 'apikey'])}={guess}", credentials=None)
    return Hostile(kind="bogus log-in", request=request, statuses=frozenset({401, 429}))


def bad_token_request(draw: random.Random) -> Hostile:
    body, word = draw.choice(
        [
            (b"", "grant_type"),
            (b"grant_type=x", "grant_type"),
            (b"grant_type=%ff%fe", "grant_type"),
            (b"grant_type=refresh_token&refresh_token=not_supported", "refresh_token"),
            (b"grant_type=refresh_token&refresh_token=%ED%A0%80.x.y", "refresh_token"),
            (b"grant_type=refresh_token", "refresh_token"),
            (b"grant_type=refresh_token&refresh_token=eyJhbGciOiJub25lIn0.e30.", "refresh_token"),
            (b"grant_type=urn:ibm:params:oauth:grant-type:apikey", "apikey"),
        ]
    )
    kind = "Content-Type: application/x-www-form-urlencoded"
    return Hostile(
        kind="bad token request",
        request=ask("POST", "/identity/token", kind, body=body, credentials=draw.choice([None, "Basic Yng6Yng="])),
        statuses=frozenset({400}),
        refusal=says(word),
    )


def bad_body(draw: random.Random) -> Hostile:
    """An invalid or incomplete form."""
    target = draw.choice([f"/v3/classify?{VERSION}", f"/v3/classifiers?{VERSION}"])
    whole = form([_picture_part(draw), part("name", b"n")])
    typed = "Content-Type: multipart/form-data; boundary=BOUNDARY"
    cut = whole[: draw.randrange(1, len(whole) - 12)]
    request, finish = draw.choice(
        [
            (ask("POST", target, typed, body=cut), False),
            (ask("POST", target, typed, body=whole)[: -draw.randrange(1, len(whole))], True),
            (ask("POST", target, "Content-Type: multipart/form-data", body=whole), False),
            (ask("POST", target, "Content-Type: multipart/form-data; boundary=other", body=whole), False),
            (ask("POST", target, "Content-Type: multipart/form-data; boundary=" + "x" * 5000, body=whole), False),
            (ask("POST", target, "Content-Type: multipart/form-data; boundary=\u00e9\u20ac", body=whole), False),
            (ask("POST", target, typed, body=b""), False),
            (ask("POST", target, body=whole), False),
            (ask("POST", target, "Content-Type: application/json", body=b'{"url": "http://127.0.0.1/"}'), False),
            (ask("POST", target, typed, body=b"--BOUNDARY\r\n\r\nx\r\n--BOUNDARY--\r\n"), False),
            (
                ask("POST", target, typed, body=b"--BOUNDARY\r\nContent-Disposition: attachment\r\n\r\nx\r\n--BOUNDARY--\r\n"),
                False,
            ),
            (
                ask("POST", target, typed, body=b"--BOUNDARY\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\nx\r\n--BOUNDARY--\r\n"),
                False,
            ),
            (ask("POST", target, typed, body=form([part("x", b"")] * 1001)), False),
            (ask("POST", target, typed, body=form([part("name", b"x" * 1_100_000)])), False),
            (in_chunks(ask("POST", target, typed, body=whole))[:-5], True),
        ]
    )
    return Hostile(kind="bad body", request=request, statuses=frozenset({400}), finish=finish)


def too_large_by_its_word(draw: random.Random) -> Hostile:
    """Refused before it comes."""
    target, length = draw.choice([("/v3/classify", 111 * 2**20), ("/v3/classifiers", 257 * 2**20), ("/v3/classifiers", 10**18)])
    head = ask(
        "POST", f"{target}?{VERSION}", "Content-Type: multipart/form-data; boundary=BOUNDARY", f"Content-Length: {length}"
    )
    return Hostile(kind="too large by its word", request=head, statuses=frozenset({413}), finish=True)


def broken_http(draw: random.Random) -> Hostile:
    """Not a valid HTTP request."""
    good = ask("GET", f"/v3/classifiers?{VERSION}")
    request = draw.choice(
        [
            b"\r\n\r\nhello\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00" + bytes(60) + b"\r\n\r\n",
            good.replace(b"HTTP/1.1", b"HTTP/9.9"),
            good.replace(b"Host: gateway", b"Host gateway"),
            good.replace(b"Host: gateway", b"X: " + b"y" * 70_000),
            good.replace(b"\r\n\r\n", b"\r\nContent-Length: x\r\n\r\n"),
            good.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            good.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    )
    return Hostile(kind="broken HTTP", request=request, statuses=frozenset({400, 405, 200, 404}), finish=True)


def pipelined(draw: random.Random) -> Hostile:
    one = ask("GET", f"/v3/classifiers?{VERSION}").replace(b"Connection: close\r\n", b"")
    last = ask("GET", f"/v3/classifiers/none_1?{VERSION}")
    return Hostile(kind="pipelined", request=one * 20 + last, statuses=frozenset({200, 404}), answers=21)


def build_mutated(seed: int) -> Callable[[random.Random], Hostile]:
    """Mutated valid requests: the correct answers are unknown, but 500 and above are wrong."""
    mutator = Mutator(seed)

    def mutated(draw: random.Random) -> Hostile:
        return Hostile(kind="mutated", request=mutator.draw(), statuses=frozenset(), finish=True)

    return mutated


KINDS: dict[Callable[[random.Random], Hostile], int] = {
    classify_picture: 22,
    classify_pictures: 5,
    classify_zip: 12,
    picture_and_bad_zip: 2,
    bad_field: 6,
    unknown_ids: 3,
    some_unknown_ids: 1,
    own_classifiers: 1,
    strange_url: 4,
    large_file: 1,
    create: 5,
    bad_create: 2,
    control_character_in_name: 1,
    too_few_sets: 1,
    retrain_unknown: 1,
    encoded_slash: 2,
    unknown_method: 2,
    strange_token_as_method: 1,
    unknown_path: 1,
    strange_id: 2,
    bad_query: 2,
    good_list: 1,
    user_data_of_unknown: 1,
    bad_credentials: 2,
    bogus_log_in: 1,
    bad_token_request: 1,
    bad_body: 4,
    too_large_by_its_word: 1,
    broken_http: 2,
    pipelined: 1,
}
"""With how often each comes."""
MUTATED_WEIGHT = 10


def draw_requests(seed: int) -> Callable[[], Hostile]:
    """A source of requests; the same seed draws the same ones."""
    draw = random.Random(seed)
    # Prepared before the measurement.
    hundred_megapixels()
    kinds = {**KINDS, build_mutated(seed): MUTATED_WEIGHT}

    def one() -> Hostile:
        (kind,) = draw.choices(list(kinds), list(kinds.values()))
        return kind(draw)

    return one
