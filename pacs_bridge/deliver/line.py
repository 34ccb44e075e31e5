"""The connection under an association: whether bytes move on it, and its end.

pynetdicom counts its response time from the moment a message is queued, so a large object to a
slow peer would time out while it is being sent; and a peer that stops reading would hold the
sending thread for ever. Here a watchdog ends the connection when nothing has moved in either
direction for the response time, or when what has a time limit as a whole takes longer: the
library waits without one for the rest of a PDU that has begun.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pynetdicom import evt
from pynetdicom.association import Association

_WATCH_INTERVAL_S = 0.25
#: For an A-ABORT, and for the peer to end the connection.
_FAREWELL_S = 5.0
#: The library reads whatever length a PDU announces; nobody who keeps to ours comes near this.
_MOST_PDU_BYTES = 1 << 20


def _bounded(receive: Callable[[int], bytearray]) -> Callable[[int], bytearray]:
    """The same, which takes a PDU of any longer length for the end of the connection."""

    def receive_bounded(length_bytes: int) -> bytearray:
        if length_bytes > _MOST_PDU_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        return receive(length_bytes)

    return receive_bounded


class Line:
    """The connection under one association that we asked for.

    Parameters
    ----------
    limit_s
        Nothing may move for at most so long while the line is watched.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last_s = time.monotonic()
        self._unsent_bytes = 0
        self._is_cut = False
        self._socket: socket.socket | None = None

    def handlers(self) -> list[tuple[evt.EventType, Callable[[evt.Event], None]]]:
        """What the association has to tell."""
        return [
            (evt.EVT_ACSE_SENT, self._keep_socket),
            (evt.EVT_DATA_SENT, self._note),
            (evt.EVT_DATA_RECV, self._note),
        ]

    @contextmanager
    def watched(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """End the connection if nothing moves for the time limit while the body runs.

        Parameters
        ----------
        check
            Called now and then; what it raises ends the connection, and is raised here in place
            of what the body makes of that.
        """
        self._last_s = time.monotonic()
        with self._ended(self._is_silent, check):
            yield

    @contextmanager
    def within(self, limit_s: float, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """End the connection if the body still runs after so long, whatever moves meanwhile.

        Parameters
        ----------
        limit_s
            For the body.
        check
            As for ``watched``.
        """
        end_s = time.monotonic() + limit_s
        with self._ended(lambda: time.monotonic() > end_s, check):
            yield

    def abort(self, association: Association) -> None:
        """End the association by A-ABORT, or without it if the peer is in the way."""
        with self.within(_FAREWELL_S):
            association.abort()

    @contextmanager
    def _ended(self, is_over: Callable[[], bool], check: Callable[[], None]) -> Iterator[None]:
        """End the connection under the body when it is over, or ``check`` raises."""
        done = threading.Event()
        faults: list[BaseException] = []

        def watch() -> None:
            while not done.wait(_WATCH_INTERVAL_S):
                try:
                    check()
                except BaseException as error:
                    faults.append(error)
                if faults or is_over():
                    self.cut()
                    return

        thread = threading.Thread(target=watch, name="line-watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            if faults:
                raise faults[0]

    def stir(self) -> None:
        """Note that something moves which belongs to this, over another connection."""
        self._last_s = time.monotonic()

    def close(self) -> None:
        """Give the socket back; the library leaves one open whose connection was refused."""
        if self._socket is not None:
            self.cut()
            self._socket.close()

    def _keep_socket(self, event: evt.Event) -> None:
        transport = event.assoc.dul.socket
        if self._socket is None and transport is not None and transport.socket is not None:
            self._socket = transport.socket
            # Nagle's algorithm would hold the end of each message for a delayed acknowledgement.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.recv = _bounded(transport.recv)
            if self._is_cut:  # before there was a connection
                self.cut()

    def _note(self, _event: evt.Event) -> None:
        self._last_s = time.monotonic()

    def _is_silent(self) -> bool:
        unsent_bytes = self._kernel_unsent_bytes()
        if unsent_bytes != self._unsent_bytes:  # given to the kernel is not yet sent
            self._unsent_bytes = unsent_bytes
            self._last_s = time.monotonic()
        return time.monotonic() - self._last_s > self._limit_s

    def _kernel_unsent_bytes(self) -> int:
        """Bytes that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
        if self._socket is None or self._socket.fileno() < 0:
            return 0
        with suppress(OSError):
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            return int.from_bytes(answer, sys.byteorder)
        return 0

    def cut(self) -> None:
        """End the connection under whatever thread reads or writes it, or once there is one."""
        self._is_cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
