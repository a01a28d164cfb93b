"""A connection to the gateway that can be cut, as by a proxy that restarts, a lost network, or a gateway that was killed."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field

BUFFER_BYTES = 65_536


@dataclass(kw_only=True)
class Line:
    """Passes every connection on to a port of this machine, until it is cut."""

    port: int
    """Of the gateway."""
    _server: socket.socket = field(init=False)
    _connections: list[socket.socket] = field(default_factory=list)
    _is_cut: bool = False
    _sent: int = 0
    _cut_after: int | None = None

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def cut(self) -> None:
        """Close all connections, and every new one at once."""
        self._is_cut = True
        for connection in self._connections:
            _reset(connection)
        self._connections.clear()

    def cut_after(self, sent_bytes: int) -> None:
        """Cut once clients have sent so many bytes more."""
        self._sent, self._cut_after = 0, sent_bytes

    def restore(self) -> None:
        self._is_cut, self._cut_after = False, None

    def close(self) -> None:
        self.cut()
        self._server.close()

    @property
    def sent_bytes(self) -> int:
        """What clients have sent since the start, or the last `cut_after`."""
        return self._sent

    @property
    def is_cut(self) -> bool:
        return self._is_cut

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._is_cut:
                _reset(client)
                continue
            try:
                gateway = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                # The gateway was killed.
                _reset(client)
                continue
            self._connections += [client, gateway]
            threading.Thread(target=self._pass, args=(client, gateway, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(gateway, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        try:
            while data := source.recv(BUFFER_BYTES):
                self._sent += len(data) if is_sent else 0
                if self._cut_after is not None and self._sent > self._cut_after:
                    self.cut()
                    return
                target.sendall(data)
        except OSError:
            # The other side was closed, or the line cut.
            pass
        for side in (source, target):
            _close(side)


def _reset(connection: socket.socket) -> None:
    """Close with a reset: what is in flight is lost."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    except OSError:
        pass
    _close(connection)


def _close(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()
