"""The commands of the runbooks work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.documented_commands import bash_blocks

KUBECTL = f"""#!/bin/sh
case " $* " in
  *" get pods "*) echo pod/ocelli-gateway-1; echo pod/ocelli-gateway-2 ;;
  *" exec "*) exec "{sys.executable}" - ;;
esac
"""
"""Stands in for a cluster with two gateways, whose commands run on this machine."""
WORDS = "Not healthy: the store does not answer"


class _SickGateway(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.path} {WORDS}".encode()
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def gateway_port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _SickGateway)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_gateway_reports_its_problems_even_if_it_is_not_healthy(tmp_path: Path, gateway_port: int) -> None:
    (block,) = bash_blocks("docs/runbooks.md", "OcelliGatewayErrors")
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    address = {"OCELLI_GATEWAY_HOST": "127.0.0.1", "OCELLI_GATEWAY_INTERNAL_PORT": str(gateway_port)}
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **address}
    done = subprocess.run(["bash", "-c", block], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [line for pod in (1, 2) for line in (f"pod/ocelli-gateway-{pod}", f"/healthz {WORDS}")]
    assert done.stdout.splitlines() == answers
