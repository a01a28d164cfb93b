"""A TCP proxy in front of a gateway that cuts or stalls connections: a fault of the network, on real sockets."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from types import TracebackType

_UPLOAD = re.compile(rb"PUT /ocelli/v1/uploads/")
_PIECE = 4096


class BrokenConnection:
    """Works until a fault is set; each fault happens once, except stalling, which lasts until `work`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut_upload = 0
        self._stall_upload = 0
        self._cut_answer = ""
        self.uploads = 0
        """How many uploads were begun."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> BrokenConnection:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # close() alone would leave accept() waiting.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut_upload(self, number: int) -> None:
        """Cut the connection in the middle of the upload of this number."""
        self._cut_upload = number

    def stall_upload(self, number: int) -> None:
        """From the upload of this number on, nothing is passed on."""
        self._stall_upload = number

    def cut_answer(self, request: str) -> None:
        """Deliver this request, and cut the connection instead of its answer."""
        self._cut_answer = request

    def work(self) -> None:
        """No faults from now on."""
        self._cut_upload = self._stall_upload = 0
        self._cut_answer = ""

    def _accept(self) -> None:
        while True:
            try:
                user, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(user,), daemon=True).start()

    def _serve(self, user: socket.socket) -> None:
        gateway = socket.create_connection(("127.0.0.1", self._port))
        answers = threading.Event()
        answers.set()
        threading.Thread(target=self._answer, args=(gateway, user, answers), daemon=True).start()
        with user, gateway, contextlib.suppress(OSError):
            while data := user.recv(_PIECE):
                if _UPLOAD.match(data):
                    self.uploads += 1
                    if self.uploads == self._cut_upload:
                        gateway.sendall(data[: len(data) // 2])
                        _cut(user)
                        return
                    if self._stall_upload and self.uploads >= self._stall_upload:
                        gateway.sendall(data[: len(data) // 2])
                        while user.recv(_PIECE):
                            pass
                        return
                if self._cut_answer and data.startswith(f"{self._cut_answer} ".encode()):
                    self._cut_answer = ""
                    answers.clear()
                gateway.sendall(data)

    @staticmethod
    def _answer(gateway: socket.socket, user: socket.socket, answers: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := gateway.recv(_PIECE):
                if not answers.is_set():
                    _cut(user)
                    return
                user.sendall(data)
            user.shutdown(socket.SHUT_WR)


def _cut(connection: socket.socket) -> None:
    # close() alone has no effect while another thread waits for data of the same socket.
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
