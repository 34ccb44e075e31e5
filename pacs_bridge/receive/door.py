"""The listening socket: who gets a thread, and for how long.

A connection is *outside* until its association is accepted. Outside there is little room, and
the connection that has waited longest makes place for a new one of its address: a crowd of
silent connections cannot keep out a peer that says what it wants.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.log import Log
from pacs_bridge.receive.upper_layer import Connection

_BACKLOG = 128
_POLL_MS = 50
_MAX_OUTSIDE = 64
_MAX_OUTSIDE_PER_ADDRESS = 16
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Door:
    """Accepts connections and gives each a thread.

    Parameters
    ----------
    address, port
        What to bind; port 0 takes any free one.
    connect
        Makes a ``Connection`` of an accepted socket and the peer's IP address.
    serve
        Serves it, in a thread of its own.
    log
        For what is turned away.

    Raises
    ------
    PermanentError
        ``cannot-listen``, if the address cannot be bound.
    """

    def __init__(
        self,
        address: str,
        port: int,
        connect: Callable[[socket.socket, str], Connection],
        serve: Callable[[Connection], None],
        log: Log,
    ) -> None:
        self._connect = connect
        self._serve = serve
        self._log = log
        self._lock = threading.Lock()
        self._outside: dict[Connection, threading.Thread] = {}  # the oldest first
        self._inside: dict[Connection, threading.Thread] = {}
        self._is_closing = threading.Event()
        self._socket = _listen(address, port)
        self._thread = threading.Thread(target=self._run, name="door")

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._socket.getsockname()[1])

    def open(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def shut(self) -> None:
        """Accept no more; those who are outside are turned away."""
        self._is_closing.set()
        self._thread.join()
        self.close()
        with self._lock:
            for connection in self._outside:
                connection.cut()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def enter(self, connection: Connection, total: int, per_address: int) -> bool:
        """Let a connection in, if fewer than these many are inside."""
        with self._lock:
            crowd = Counter(one.address for one in self._inside)
            if len(self._inside) >= total or crowd[connection.address] >= per_address:
                return False
            thread = self._outside.pop(connection, None)
            if thread is None:
                return False
            self._inside[connection] = thread
        return True

    def inside(self) -> int:
        """How many associations there are."""
        with self._lock:
            return len(self._inside)

    def cut(self) -> None:
        """End all connections."""
        for connection in self._all():
            connection.cut()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all threads of connections have ended; False if some have not."""
        with self._lock:
            threads = [*self._inside.values(), *self._outside.values()]
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in threads)

    def _run(self) -> None:
        poll = select.poll()  # select() fails once the process has more than 1,023 descriptors
        poll.register(self._socket, select.POLLIN)
        while not self._is_closing.is_set():
            if not poll.poll(_POLL_MS):
                continue
            try:
                accepted, peer = self._socket.accept()
            except OSError as error:
                if error.errno in _NO_RESOURCES:
                    self._log.error("accept-failed", error=errno.errorcode[error.errno])
                    self._is_closing.wait(_POLL_MS / 1000)
                continue
            self._take(accepted, _plain_address(peer[0]))

    def _take(self, accepted: socket.socket, address: str) -> None:
        try:
            connection = self._connect(accepted, address)
        except OSError:  # it was reset before it was looked at
            accepted.close()
            return
        thread = threading.Thread(
            target=self._run_connection, args=(connection,), name="association", daemon=True
        )
        with self._lock:
            self._outside[connection] = thread
            leaving = self._in_the_way(address)
            if leaving is not None:
                del self._outside[leaving]  # its thread ends by itself
        if leaving is not None:
            leaving.cut()
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._log.error("thread-failed", address=address)
            self._forget(connection)

    def _in_the_way(self, address: str) -> Connection | None:
        """Who has to go because of a newcomer from this address."""
        crowd = Counter(one.address for one in self._outside)
        if crowd[address] > _MAX_OUTSIDE_PER_ADDRESS:
            return self._oldest(address)
        if len(self._outside) > _MAX_OUTSIDE:
            return self._oldest(crowd.most_common(1)[0][0])
        return None

    def _oldest(self, address: str) -> Connection:
        return next(one for one in self._outside if one.address == address)

    def _run_connection(self, connection: Connection) -> None:
        try:
            self._serve(connection)
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._outside.pop(connection, None)
            self._inside.pop(connection, None)
        connection.close()

    def _all(self) -> Iterable[Connection]:
        with self._lock:
            return [*self._inside, *self._outside]


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise PermanentError(
            Reason.CANNOT_LISTEN, f"{address} port {port}: {error.strerror}"
        ) from error
    listening.setblocking(False)
    return listening


def _plain_address(address: str) -> str:
    """An IPv4 address as such, where an IPv6 socket gives it mapped; without its scope."""
    found = ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
