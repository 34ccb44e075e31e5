"""Connections whose waits are short, so that time limits and the caller's wishes always hold.

The time limits of an HTTP library begin anew with every byte. A service that drips its header,
interim answers or the frame of a chunk could so hold a thread for ever. Here what is left of the
time is kept across reads and writes, and no system call waits for longer than a slice of it.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

import httpcore

#: Bytes in either direction prolong a wait by their time at this rate.
SLOWEST_BYTES_PER_S = 4096
_SLICE_S = 0.5
_PIECE_BYTES = 64 * 1024


class Pace:
    """How long one exchange may still wait.

    Parameters
    ----------
    limit_s
        For the whole head of the answer after the request was sent, and for silence.
    check
        Called twice a second or so while waiting; what it raises ends the exchange.
    """

    def __init__(self, limit_s: float, check: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._left_s = limit_s
        self._check = check
        self._checked_s = time.monotonic()
        self._is_writing = False
        self._is_in_body = False

    def begin_body(self) -> None:
        """The head is there whole: from here on what comes counts."""
        self._left_s = self._limit_s
        self._is_in_body = True

    def look(self) -> None:
        """Call what is called while waiting."""
        self._checked_s = time.monotonic()
        self._check()

    def run(
        self, action: Callable[[float], Any], is_write: bool, size: Callable[[Any], int]
    ) -> Any:
        """What ``action`` gives, which waits for so many seconds and is begun again after that.

        Raises
        ------
        TimeoutError
            If no time is left.
        """
        if is_write != self._is_writing:
            self._is_writing = is_write
            self._left_s = self._limit_s
        while self._left_s > 0:
            begun_s = time.monotonic()
            if begun_s - self._checked_s >= _SLICE_S:
                self.look()
                begun_s = time.monotonic()
            try:
                given = action(min(_SLICE_S, self._left_s))
            except TimeoutError:
                self._left_s -= time.monotonic() - begun_s
                continue
            self._left_s -= time.monotonic() - begun_s
            if is_write or self._is_in_body:
                gained_s = size(given) / SLOWEST_BYTES_PER_S
                self._left_s = min(self._left_s + gained_s, self._limit_s)
            return given
        raise TimeoutError


class PacedBackend:
    """Opens connections whose reads and writes keep to the pace of their thread.

    An ``httpcore.NetworkBackend``.
    """

    def __init__(self) -> None:
        self._opener = httpcore.SyncBackend()
        self._current = threading.local()

    @contextmanager
    def paced(self, pace: Pace) -> Iterator[None]:
        """Let this thread's reads and writes keep to a pace."""
        before = getattr(self._current, "pace", None)
        self._current.pace = pace
        try:
            yield
        finally:
            self._current.pace = before

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> PacedStream:
        """See ``httpcore.NetworkBackend``."""
        opened = _opened(
            lambda: self._opener.connect_tcp(host, port, timeout, local_address, socket_options),
            self._pace(),
        )
        return PacedStream(opened, self._pace)

    def _pace(self) -> Pace:
        pace = getattr(self._current, "pace", None)
        return pace if isinstance(pace, Pace) else Pace(_SLICE_S, lambda: None)


class PacedStream:
    """A connection; an ``httpcore.NetworkStream``.

    Parameters
    ----------
    stream
        As the library opened it.
    pace
        Of the exchange that this thread is in.
    """

    def __init__(self, stream: httpcore.NetworkStream, pace: Callable[[], Pace]) -> None:
        self._stream = stream
        self._pace = pace
        self._socket: socket.socket = stream.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the pace
        """See ``httpcore.NetworkStream``."""

        def receive(wait_s: float) -> bytes:
            self._socket.settimeout(wait_s)
            return self._socket.recv(max_bytes)

        try:
            data: bytes = self._pace().run(receive, False, len)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError from error
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the pace
        """See ``httpcore.NetworkStream``."""
        left = memoryview(buffer)

        def send(wait_s: float) -> int:
            self._socket.settimeout(wait_s)
            return self._socket.send(left[:_PIECE_BYTES])

        try:
            while left:
                left = left[self._pace().run(send, True, int) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError from error

    def close(self) -> None:
        """See ``httpcore.NetworkStream``."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> PacedStream:
        """See ``httpcore.NetworkStream``."""
        secured = _opened(
            lambda: self._stream.start_tls(ssl_context, server_hostname, timeout), self._pace()
        )
        return PacedStream(secured, self._pace)

    def get_extra_info(self, info: str) -> Any:
        """See ``httpcore.NetworkStream``."""
        return self._stream.get_extra_info(info)


def _opened(opening: Callable[[], httpcore.NetworkStream], pace: Pace) -> httpcore.NetworkStream:
    """What is opened, by a thread of its own: the library waits for a name or a peer in one go.

    Where the caller does not want it any more it is closed when it comes.
    """
    coming: Future[httpcore.NetworkStream] = Future()

    def work() -> None:
        try:
            coming.set_result(opening())
        except BaseException as error:
            coming.set_exception(error)

    threading.Thread(target=work, name="connect", daemon=True).start()
    try:
        while not wait((coming,), _SLICE_S).done:
            pace.look()
    except BaseException:
        coming.add_done_callback(_close_unwanted)
        raise
    return coming.result()


def _close_unwanted(coming: Future[httpcore.NetworkStream]) -> None:
    if coming.exception() is None:
        coming.result().close()
