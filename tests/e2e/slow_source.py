"""A web server in the tests' namespace that offers the samples, at full speed or so slowly that a training lasts."""

from __future__ import annotations

import base64
import json
from typing import Any, Self

from tests.e2e.cluster import NAMESPACE
from tests.e2e.pods import build_server
from tests.product.instance import Ocelli

NAME = "slow-source"
SAMPLES = ("zero.zip", "one.zip", "two.zip")
PROGRAM = """
import http.server, pathlib, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pathlib.Path("/samples", self.path.rpartition("/")[2]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        while body and self.path.startswith("/slow/") and not pathlib.Path("/tmp/go").exists():
            self.wfile.write(body[:1])
            body = body[1:]
            time.sleep(0.5)
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


class SlowSource:
    """The server, which runs while its context lasts."""

    def __init__(self, ocelli: Ocelli) -> None:
        self._ocelli = ocelli

    def __enter__(self) -> Self:
        self._ocelli.kubectl(
            "apply",
            "--server-side",
            "-f",
            "-",
            input_text=json.dumps({"apiVersion": "v1", "kind": "List", "items": self._build()}),
        )
        self._ocelli.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s")
        return self

    def __exit__(self, *_error: object) -> None:
        self._ocelli.kubectl("delete", f"pod/{NAME}", f"service/{NAME}", f"configmap/{NAME}", "--ignore-not-found", "--now")

    def url(self, sample: str) -> str:
        """The address of a sample that is served at full speed."""
        return f"http://{NAME}.{NAMESPACE}.svc:8000/{sample}"

    def slow_url(self, sample: str) -> str:
        """The address of a sample that is served at two bytes a second, until `go`."""
        return f"http://{NAME}.{NAMESPACE}.svc:8000/slow/{sample}"

    def go(self) -> None:
        """Serve slow addresses at full speed from now on."""
        self._ocelli.kubectl("exec", NAME, "--", "touch", "/tmp/go")

    def _build(self) -> list[dict[str, Any]]:
        samples = {name: base64.b64encode((self._ocelli.samples / name).read_bytes()).decode() for name in SAMPLES}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "binaryData": samples}
        container = {"command": ["python", "-c", PROGRAM]}
        return [config, *build_server({"name": NAME}, 8000, container, {"configMap": {"name": NAME}}, "/samples")]
