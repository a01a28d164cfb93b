"""Zips of examples over HTTP. A test can delay the answers."""

from __future__ import annotations

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def build_zip(colour: tuple[int, int, int], count: int) -> bytes:
    """`count` images of noise around a colour: two colours are easy to distinguish."""
    buffer = io.BytesIO()
    generator = np.random.default_rng(sum(colour) + count)
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(count):
            noise = generator.integers(-40, 40, (48, 48, 3)) + np.array(colour)
            image = io.BytesIO()
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(image, "PNG")
            archive.writestr(f"{index}.png", image.getvalue())
    return buffer.getvalue()


class ExampleSources:
    """`/red.zip` and `/blue.zip` have enough examples, `/few.zip` does not. `/red-test.zip` and `/blue-test.zip` have other
    images of these colours. `/page.zip` is a web page. After `hold`, answers wait for `release`."""

    def __init__(self) -> None:
        contents = {
            "/red.zip": build_zip((180, 60, 60), 12),
            "/blue.zip": build_zip((60, 60, 180), 12),
            "/red-test.zip": build_zip((180, 60, 60), 10),
            "/blue-test.zip": build_zip((60, 60, 180), 10),
            "/few.zip": build_zip((60, 180, 60), 3),
            "/page.zip": b"<html>Please log in</html>",
        }
        self.requests: list[str] = []
        """The paths that were asked for."""
        requests = self.requests
        self._may_answer = threading.Event()
        self._may_answer.set()
        may_answer = self._may_answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                may_answer.wait(120)
                content = contents.get(self.path.split("?")[0])
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
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
