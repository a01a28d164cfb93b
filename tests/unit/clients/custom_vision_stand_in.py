"""A stand-in of Azure Custom Vision's training API, v3.3, on a real HTTP server.

Written by hand from Microsoft's description of the API (its OpenAPI document and its examples); it is not a recording of the
service. Microsoft's own client reads it in a test. It has the operations that an import uses, with their limits and
errors, and serves the images at addresses with a signature, as blob storage does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_OID, uuid5

from tests.unit.clients.photographs import image_bytes

KEY = "0123456789abcdef0123456789abcdef"
SIGNATURE = "sig=not-for-logs"
CLASSIFICATION, OBJECT_DETECTION = "ee85a74c-405e-4adc-bb47-ffa8ca0c9f31", "da2e3a8a-40a5-4171-82f4-58522f70fbc1"
PREFIX = "/customvision/v3.3/training"


def identifier(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


@dataclass
class StandInImage:
    """An image of the project."""

    number: int
    tags: tuple[str, ...]
    regions: bool = False

    @property
    def image_id(self) -> str:
        return identifier(f"image {self.number}")


@dataclass
class StandIn:
    """The project, what goes wrong, and what was asked."""

    name: str = "Dogs"
    images: list[StandInImage] = field(default_factory=list)
    negative_tags: set[str] = field(default_factory=lambda: {"Negative"})
    domain: str = CLASSIFICATION
    classification_type: str = "Multiclass"
    untagged: int = 0
    extra_tags: tuple[str, ...] = ()
    in_network: bool = False
    """The resource is in a virtual network: images are paths of artifacts."""
    address: str = ""
    busy_requests: int = 0
    """This many requests to the API are answered with 429."""
    broken_images: set[int] = field(default_factory=set)
    images_until_outage: int | None = None
    """After this many images, each further one is answered with 404."""
    images_until_silence: int | None = None
    """After this many images, further ones are never answered."""
    miscounted: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Paths and queries."""
    keys_at_images: list[str] = field(default_factory=list)
    served: int = 0
    """Images that were answered."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    end: threading.Event = field(default_factory=threading.Event)

    def add(self, tag: str, numbers: range) -> None:
        self.images += [StandInImage(number, (tag,)) for number in numbers]

    @property
    def downloads(self) -> int:
        return sum("/blobs/" in request or "/artifacts" in request for request in self.requests)

    @property
    def tags(self) -> list[str]:
        return list(dict.fromkeys([*(tag for image in self.images for tag in image.tags), *self.extra_tags]))

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        """Status and body of a request to the API."""
        project = f"/projects/{identifier('project')}"
        if path == "/projects":
            return 200, [self._project()]
        if path.startswith("/domains/"):
            kind = "ObjectDetection" if path.endswith(OBJECT_DETECTION) else "Classification"
            return 200, {"id": path.rsplit("/", 1)[1], "name": "General", "type": kind, "exportable": False, "enabled": True}
        if path == f"{project}/tags":
            return 200, [self._tag(name) for name in self.tags]
        if path == f"{project}/images/tagged/count":
            return 200, len(self.images)
        if path == f"{project}/images/untagged/count":
            return 200, self.untagged
        if path == f"{project}/images/tagged":
            return self._page(query)
        return 404, {"code": "NotFoundProject", "message": "Project not found."}

    def _project(self) -> dict[str, Any]:
        settings = {
            "domainId": self.domain,
            "classificationType": self.classification_type,
            "targetExportPlatforms": [],
            "useNegativeSet": True,
        }
        created = "2017-12-19T15:47:02.5477615Z"
        return {
            "id": identifier("project"),
            "name": self.name,
            "description": "",
            "settings": settings,
            "created": created,
            "lastModified": created,
            "thumbnailUri": "",
            "drModeEnabled": False,
            "status": "Succeeded",
        }

    def _tag(self, name: str) -> dict[str, Any]:
        count = sum(name in image.tags for image in self.images)
        kind = "Negative" if name in self.negative_tags else "Regular"
        count = self.miscounted.get(name, count)
        return {"id": identifier(name), "name": name, "description": None, "type": kind, "imageCount": count}

    def _page(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        take, skip = int(query.get("take", ["50"])[0]), int(query.get("skip", ["0"])[0])
        if not 0 <= take <= 256:
            return 400, {"code": "BadRequest", "message": "The take parameter must be between 0 and 256."}
        images = self.images if query.get("orderBy") == ["Oldest"] else self.images[::-1]
        return 200, [self._image(image) for image in images[skip : skip + take]]

    def _image(self, image: StandInImage) -> dict[str, Any]:
        path = f"blobs/{image.number}"
        uri = path if self.in_network else f"{self.address}/{path}?sv=2017-04-17&{SIGNATURE}"
        created = "2017-12-19T15:56:10Z"
        found: dict[str, Any] = {
            "id": image.image_id,
            "created": created,
            "width": 32,
            "height": 24,
            "resizedImageUri": uri,
            "originalImageUri": uri,
            "thumbnailUri": uri,
            "tags": [{"tagId": identifier(tag), "tagName": tag, "created": created} for tag in image.tags],
        }
        if image.regions:
            box = {"left": 0.1, "top": 0.1, "width": 0.5, "height": 0.5}
            tag = found["tags"][0]
            found["regions"] = [{"regionId": identifier("region"), **tag, **box}]
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        with self.stand_in.lock:
            self.stand_in.requests.append(self.path)
        if parts.path.startswith("/blobs/"):
            self.stand_in.keys_at_images.append(self.headers.get("Training-Key", ""))
            self._send_image(int(parts.path.rsplit("/", 1)[1]), signed=SIGNATURE in parts.query)
        elif self.headers.get("Training-Key") != KEY:
            self._send(401, {"code": "Unauthorized", "message": "Access denied due to invalid subscription key."})
        elif self._is_busy():
            self._send(429, {"code": "TooManyRequests", "message": "Rate limit is exceeded."}, {"Retry-After": "7"})
        elif parts.path.endswith("/artifacts"):
            self._send_image(int(query["path"][0].rsplit("/", 1)[1]), signed=True)
        else:
            self._send(*self.stand_in.answer(parts.path.removeprefix(PREFIX), query))

    def _is_busy(self) -> bool:
        with self.stand_in.lock:
            busy = self.stand_in.busy_requests > 0
            self.stand_in.busy_requests -= busy
            return busy

    def _send_image(self, number: int, *, signed: bool) -> None:
        with self.stand_in.lock:
            left = self.stand_in.images_until_outage
            if left is not None:
                self.stand_in.images_until_outage = max(left - 1, 0)
            silent = self.stand_in.served == self.stand_in.images_until_silence
            self.stand_in.served += not silent
        if silent:
            self.stand_in.end.wait()
            self.close_connection = True
        elif not signed:
            self._send(403, "AuthenticationFailed")
        elif left == 0 or number in self.stand_in.broken_images:
            self._send(404, "BlobNotFound")
        else:
            self._send(200, image_bytes(number))

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "image/jpeg" if isinstance(body, bytes) else "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Tests look at `requests`."""


@contextmanager
def running_stand_in() -> Iterator[StandIn]:
    """The service with an empty project, on a port of this machine."""
    stand_in = StandIn()
    handler = type("Handler", (_Handler,), {"stand_in": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    stand_in.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.end.set()
        server.shutdown()
        server.server_close()
        thread.join()
