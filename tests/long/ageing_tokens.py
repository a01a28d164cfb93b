"""A token service in front of the gateway's: the first token for a client is already 55 of its 60 minutes old.

So the token expires within seconds, and the test sees how the client renews it. The token is signed
again with the gateway's own key, so the gateway accepts it like an older token.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt

from ocelli_gateway.token_keys import parse_keys
from tests.product.instance import Ocelli

AGE_SECONDS = 55 * 60
TOKEN_KEYS_SECRET = "ocelli-token-keys"
PATH = "/identity/token"


@dataclass(kw_only=True)
class AgeingTokens:
    """The requests of one client for tokens."""

    address: str = ""
    """The token service's URL with its path, as IBM's clients need it."""
    grants: list[tuple[str, int]] = field(default_factory=list)
    """Each request's `grant_type`, without the common prefix, and the status of the answer."""


@contextmanager
def serving_old_tokens(ocelli: Ocelli) -> Iterator[AgeingTokens]:
    tokens = AgeingTokens()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            answer = httpx.post(ocelli.address + PATH, content=form, headers=headers)
            tokens.grants.append((parse_qs(form.decode())["grant_type"][0].rpartition(":")[2], answer.status_code))
            first = len(tokens.grants) == 1 and answer.status_code == 200
            body = json.dumps(age(ocelli, answer.json())).encode() if first else answer.content
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """No log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    tokens.address = f"http://127.0.0.1:{server.server_port}{PATH}"
    try:
        yield tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def age(ocelli: Ocelli, answer: dict[str, Any]) -> dict[str, Any]:
    """The same answer, as if it were 55 minutes old."""
    token = answer["access_token"]
    identity = jwt.get_unverified_header(token)["kid"]
    query = ("get", "secrets", "--all-namespaces", f"--field-selector=metadata.name={TOKEN_KEYS_SECRET}", "-o", "json")
    (secret,) = json.loads(ocelli.kubectl(*query))["items"]
    key = parse_keys(secret)[identity].secret
    claims = jwt.decode(token, options={"verify_signature": False})
    aged = {**claims, "iat": claims["iat"] - AGE_SECONDS, "exp": claims["exp"] - AGE_SECONDS}
    return {
        **answer,
        "access_token": jwt.encode(aged, key, algorithm="HS256", headers={"kid": identity}),
        "expiration": answer["expiration"] - AGE_SECONDS,
    }
