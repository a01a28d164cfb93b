"""A bucket: versitygw, an S3 server over a folder. It is built before the first test."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.go_programs import GoProgram, build_before_tests, find_or_skip

VERSITYGW = GoProgram(
    name="versitygw",
    module_folder=Path(__file__).with_name("versitygw"),
    package="github.com/versity/versitygw/cmd/versitygw",
)
ADMINISTRATOR = ("administrator", "secret-of-the-administrator")
START_TIMEOUT_SECONDS = 30.0


def pytest_collection_finish(session: pytest.Session) -> None:
    build_before_tests(session, {"bucket_server": VERSITYGW})


@dataclass(frozen=True, kw_only=True)
class BucketServer:
    """An S3 server, and the folder whose folders are its buckets."""

    program: Path
    url: str
    folder: Path

    def environment(self, access_key: str, secret_key: str) -> dict[str, str]:
        """The variables with a user's credentials."""
        return {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
        }

    def create_user(self, access_key: str, secret_key: str) -> None:
        command = [
            self.program,
            "admin",
            "--access",
            ADMINISTRATOR[0],
            "--secret",
            ADMINISTRATOR[1],
            "--endpoint-url",
            self.url,
        ]
        subprocess.run([*command, "create-user", "--access", access_key, "--secret", secret_key, "--role", "user"], check=True)

    def put_policy(self, bucket: str, policy: str) -> None:
        """Set the policy of a bucket."""
        digest = hashlib.sha256(policy.encode()).hexdigest()
        headers = ["-H", "Content-Type: application/json", "-H", f"x-amz-content-sha256: {digest}"]
        login = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", ":".join(ADMINISTRATOR)]
        body = ["-X", "PUT", "--data-binary", policy, f"{self.url}/{bucket}?policy="]
        subprocess.run(["curl", "-sS", "--fail-with-body", *login, *headers, *body], check=True, timeout=30)


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    """The server of this test process; skipped if it can't be built."""
    program = find_or_skip(VERSITYGW)
    root = tmp_path_factory.mktemp("versitygw")
    for name in ("buckets", "users"):
        (root / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--access", ADMINISTRATOR[0], "--secret", ADMINISTRATOR[1], "--iam-dir", str(root / "users"), "--quiet"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "--port", f"127.0.0.1:{port}", *options, "posix", str(root / "buckets")], stdout=log, stderr=log
        )
    try:
        wait_until_open(port, process)
        yield BucketServer(program=program, url=f"http://127.0.0.1:{port}", folder=root / "buckets")
    finally:
        process.terminate()
        process.wait(timeout=10)


def wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, "the server does not listen in time"
        time.sleep(0.05)
