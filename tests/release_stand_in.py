"""A stand-in for the servers that publish the release binaries of Kubernetes and etcd, for tests without a network."""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ocelli_local.release import ARCHITECTURES, ETCD_URL_VARIABLE, KUBERNETES_URL_VARIABLE
from ocelli_local.versions import KUBERNETES_PROGRAMS, PinnedVersions

Content = bytes | mmap.mmap


class ReleaseStandIn:
    """Serves `files` (content by path) as the release servers do, with the faults that a test asks for."""

    def __init__(self, programs: Mapping[str, Content], pinned: PinnedVersions, machine: str) -> None:
        architecture = ARCHITECTURES[machine]
        etcd = f"etcd-v{pinned.etcd}-linux-{architecture}"
        self.folder = f"/kubernetes/v{pinned.kubernetes}/bin/linux/{architecture}"
        self.archive = f"/etcd/v{pinned.etcd}/{etcd}.tar.gz"
        archive = pack(f"{etcd}/etcd", programs["etcd"])
        self.files: dict[str, Content] = {self.archive: archive}
        self.files[f"/etcd/v{pinned.etcd}/SHA256SUMS"] = (
            f"{'0' * 64}  another-file.tar.gz\n{hash_of(archive)}  {etcd}.tar.gz\n".encode()
        )
        for name in KUBERNETES_PROGRAMS:
            self.files[f"{self.folder}/{name}"] = programs[name]
            self.files[f"{self.folder}/{name}.sha256"] = hash_of(programs[name]).encode()
        self.requests: Counter[str] = Counter()
        self.cut_off: set[str] = set()
        """Paths whose answers end in the middle."""
        self.stalled: set[str] = set()
        """Paths whose answers stop after the first byte, but do not end."""
        self.stalling = threading.Event()
        self.closing = threading.Event()
        self.url = ""

    @property
    def settings(self) -> dict[str, str]:
        return {KUBERNETES_URL_VARIABLE: f"{self.url}/kubernetes", ETCD_URL_VARIABLE: f"{self.url}/etcd/"}

    @contextlib.contextmanager
    def serving(self) -> Iterator[ReleaseStandIn]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.answer(self)

            def log_message(self, *_arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        self.requests[path] += 1
        content = self.files.get(path)
        if content is None:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        with contextlib.suppress(ConnectionError):
            if path in self.stalled:
                request.wfile.write(content[:1])
                self.stalling.set()
                self.closing.wait(30)
            elif path in self.cut_off:
                request.wfile.write(content[: len(content) // 2])
            else:
                request.wfile.write(content)


def pack(name: str, content: Content) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def hash_of(content: Content) -> str:
    return hashlib.sha256(content).hexdigest()
