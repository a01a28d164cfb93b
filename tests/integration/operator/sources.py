"""Zips of examples over HTTP. A test can delay the answers."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def build_images(colour: tuple[int, int, int], count: int) -> list[bytes]:
    """`count` images of noise around a colour: two colours are easy to distinguish."""
    images: list[bytes] = []
    generator = np.random.default_rng(sum(colour) + count)
    for _ in range(count):
        noise = generator.integers(-40, 40, (48, 48, 3)) + np.array(colour)
        image = io.BytesIO()
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(image, "PNG")
        images.append(image.getvalue())
    return images


def build_zip(images: Iterable[bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, image in enumerate(images):
            archive.writestr(f"{index}.png", image)
    return buffer.getvalue()


LOGIN = ("reader", "pa55word")


class ExampleSources:
    """`/red.zip` and `/blue.zip` have enough examples, `/few.zip` does not. `/red-test.zip` and `/blue-test.zip` have other
    images of these colours. `/mixed.zip` has those of `/blue.zip`, a red and a green one. `/page.zip` is a web page. What is
    below `/private` needs `LOGIN`. After `hold`, answers wait for `release`."""

    def __init__(self) -> None:
        (red,), (green,) = build_images((180, 60, 60), 1), build_images((60, 180, 60), 1)
        self.red_digest, self.green_digest = hashlib.sha256(red).hexdigest(), hashlib.sha256(green).hexdigest()
        """Of the images in `/mixed.zip` that are not blue."""
        contents = {
            "/red.zip": build_zip(build_images((180, 60, 60), 12)),
            "/blue.zip": build_zip(build_images((60, 60, 180), 12)),
            "/red-test.zip": build_zip(build_images((180, 60, 60), 10)),
            "/blue-test.zip": build_zip(build_images((60, 60, 180), 10)),
            "/mixed.zip": build_zip([*build_images((60, 60, 180), 12), red, green]),
            "/few.zip": build_zip(build_images((60, 180, 60), 3)),
            "/page.zip": b"<html>Please log in</html>",
        }
        contents |= {f"/private{path}": content for path, content in contents.items()}
        self.requests: list[str] = []
        """The paths that were asked for."""
        requests = self.requests
        self.authorizations: set[str] = set()
        """All headers `Authorization` that clients have sent."""
        authorizations = self.authorizations
        login = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
        self._may_answer = threading.Event()
        self._may_answer.set()
        may_answer = self._may_answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                may_answer.wait(120)
                self._answer(body=True)

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def _answer(self, *, body: bool) -> None:
                content = contents.get(self.path.split("?")[0])
                sent = self.headers.get("Authorization")
                if sent is not None:
                    authorizations.add(sent)
                status = 404 if content is None else 200
                if self.path.startswith("/private/") and sent != login:
                    content, status = None, 401
                self.send_response(status)
                self.send_header("Content-Length", str(len(content or b"")))
                if content is not None:
                    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                if body:
                    self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def hold(self) -> None:
        self._may_answer.clear()

    def release(self) -> None:
        self._may_answer.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
