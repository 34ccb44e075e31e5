"""PDUs over one TCP connection (PS3.8 section 9), with a limit on every wait and every length.

The connection is read by one thread, which blocks: there is no polling, and a peer that goes
silent inside a PDU costs that thread and its deadline, nothing else.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct(">BxI")  # type, reserved, length (PS3.8 9.3.1)
_PDV_HEADER = struct.Struct(">IBB")  # length, context, message control (PS3.8 9.3.5.1, E.2)
_PDV_OVERHEAD_BYTES = 2
_IS_COMMAND = 0x01
_IS_LAST = 0x02
#: How often a connection that waits looks whether it should go.
_WATCH_S = 0.25
_SEND_TIMEOUT_S = 30.0
#: A slow but honest peer gets a second more for so many bytes.
_SLOWEST_BYTES_PER_S = 64 * 1024


class PduType(IntEnum):
    """PS3.8 9.3.1."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class Rejection(tuple[int, int, int]):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    __slots__ = ()


CALLING_AE_TITLE_UNKNOWN = Rejection((1, 1, 3))
CALLED_AE_TITLE_UNKNOWN = Rejection((1, 1, 7))
APPLICATION_CONTEXT_UNKNOWN = Rejection((1, 1, 2))
PROTOCOL_VERSION_UNKNOWN = Rejection((1, 2, 2))
TEMPORARY_CONGESTION = Rejection((2, 3, 1))
LOCAL_LIMIT_EXCEEDED = Rejection((2, 3, 2))

RELEASE_RP = _HEADER.pack(PduType.RELEASE_RP, 4) + bytes(4)


class ProtocolError(Exception):
    """The peer breaks the protocol, or one of its limits: the association is aborted.

    Parameters
    ----------
    reason
        Goes into the A-ABORT.
    what
        For the log.
    """

    def __init__(self, reason: AbortReason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


class ConnectionEndedError(Exception):
    """The connection is gone, or too slow: there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """A PDU as it came; the body is only valid until the next one is read."""

    type: int
    body: memoryview


@dataclass(frozen=True, slots=True)
class Pdv:
    """A presentation data value: a fragment of a command or of a data set (PS3.8 E.2)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class Connection:
    """One accepted TCP connection.

    Parameters
    ----------
    connected
        The socket; it is owned from now on.
    address
        IP address of the peer.
    pdu_timeout_s
        A PDU that has begun must be whole after this, and a second for every 64 KiB.
    is_leaving
        Asked while waiting for a PDU: whether to wait no longer.
    """

    def __init__(
        self,
        connected: socket.socket,
        address: str,
        pdu_timeout_s: float,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.address = address
        self._socket = connected
        self._pdu_timeout_s = pdu_timeout_s
        self._is_leaving = is_leaving
        self._buffer = bytearray(_HEADER.size)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def read_pdu(self, wait_s: float, max_bytes: int, may_leave: bool = True) -> Pdu:
        """The next PDU.

        Parameters
        ----------
        wait_s
            How long to wait for its first byte.
        max_bytes
            Longest body; a longer one is refused before anything of it is read.
        may_leave
            Whether this is a moment at which the bridge may leave.

        Raises
        ------
        ProtocolError
            If its type is unknown or its body too long.
        ConnectionEndedError
            If the peer is gone or silent, or the bridge is leaving.
        """
        header = memoryview(self._buffer)[: _HEADER.size]
        self._wait(wait_s, may_leave)
        self._fill(header, time.monotonic() + self._pdu_timeout_s)
        kind, length = _HEADER.unpack(header)
        if kind not in PduType.__members__.values():
            raise ProtocolError(AbortReason.UNRECOGNIZED_PDU, f"PDU type {kind:#04x}")
        if length > max_bytes:
            raise ProtocolError(
                AbortReason.INVALID_PARAMETER, f"a PDU of {length} bytes; at most {max_bytes}"
            )
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        patience_s = self._pdu_timeout_s + length / _SLOWEST_BYTES_PER_S
        self._fill(body, time.monotonic() + patience_s)
        return Pdu(kind, body)

    def send(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises
        ------
        ConnectionEndedError
            If the peer is gone or does not read.
        """
        try:
            self._socket.settimeout(_SEND_TIMEOUT_S)
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionEndedError("the peer does not read") from error

    def abort(self, reason: AbortReason) -> None:
        """Send an A-ABORT of the service provider, if the peer still listens (PS3.8 9.3.8)."""
        with suppress(ConnectionEndedError):
            self.send(_HEADER.pack(PduType.ABORT, 4) + bytes((0, 0, 2, reason)))

    def reject(self, rejection: Rejection) -> None:
        """Send an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        with suppress(ConnectionEndedError):
            self.send(_HEADER.pack(PduType.ASSOCIATE_RJ, 4) + bytes((0, *rejection)))

    def cut(self) -> None:
        """End the connection from another thread: whoever reads it is told that it is gone."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def finish(self, wait_s: float) -> None:
        """Let the peer close first, as it must after a release or an abort (PS3.8 Sta13)."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + wait_s
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(65536):
                    break

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _wait(self, wait_s: float, may_leave: bool) -> None:
        """Wait until something can be read."""
        deadline = time.monotonic() + wait_s
        while True:
            if may_leave and self._is_leaving():
                raise ConnectionEndedError("the bridge is leaving")
            left = deadline - time.monotonic()
            if left <= 0:
                raise ConnectionEndedError(f"silent for {wait_s:g} s")
            try:
                self._socket.settimeout(min(left, _WATCH_S))
                if self._socket.recv(1, socket.MSG_PEEK):
                    return
            except TimeoutError:
                continue
            except OSError as error:
                raise ConnectionEndedError("connection reset") from error
            raise ConnectionEndedError("connection closed")

    def _fill(self, target: memoryview, deadline: float) -> None:
        """Read exactly as many bytes as ``target`` holds."""
        done = 0
        try:
            # Acknowledge at once: a sender with Nagle's algorithm on keeps the last part of an
            # instance back until then, up to 40 ms each (tcp(7): the kernel resets this).
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            while done < len(target):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectionEndedError("stalled inside a PDU")
                self._socket.settimeout(left)
                count = self._socket.recv_into(target[done:])
                if not count:
                    raise ConnectionEndedError("connection closed inside a PDU")
                done += count
        except TimeoutError as error:
            raise ConnectionEndedError("stalled inside a PDU") from error
        except OSError as error:
            raise ConnectionEndedError("connection reset") from error


def pdvs(body: memoryview) -> Iterator[Pdv]:
    """The presentation data values of a P-DATA-TF PDU.

    Raises
    ------
    ProtocolError
        If their lengths do not add up to the PDU's.
    """
    at = 0
    while at < len(body):
        if len(body) - at < _PDV_HEADER.size:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "a cut PDV header")
        length, context_id, control = _PDV_HEADER.unpack_from(body, at)
        start = at + _PDV_HEADER.size
        end = start + length - _PDV_OVERHEAD_BYTES
        if end < start or end > len(body):
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"a PDV of {length} bytes")
        yield Pdv(
            context_id, bool(control & _IS_COMMAND), bool(control & _IS_LAST), body[start:end]
        )
        at = end


def data_pdu(context_id: int, command: bytes) -> bytes:
    """A P-DATA-TF PDU that holds one whole command."""
    pdv = _PDV_HEADER.pack(len(command) + _PDV_OVERHEAD_BYTES, context_id, _IS_COMMAND | _IS_LAST)
    return _HEADER.pack(PduType.DATA_TF, len(pdv) + len(command)) + pdv + command
