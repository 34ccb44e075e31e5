"""The addresses of a host, asked for with a limit of time: the system's own look-up has none."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

#: Family, type, protocol, canonical name, address, as ``socket.getaddrinfo`` gives them.
Address: TypeAlias = tuple[Any, Any, int, str, Any]


@dataclass(slots=True)
class _Answer:
    """What came of one look-up, once ``is_there``."""

    is_there: threading.Event
    addresses: tuple[Address, ...] = ()
    error: OSError | None = None


class NameLookup:
    """Looks up one host; threads may share it, and then wait for the same answer.

    Parameters
    ----------
    host
        Name or address.
    port
        Where it is called; None: none.
    """

    def __init__(self, host: str, port: int | None) -> None:
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._pending: _Answer | None = None

    def addresses(self, limit_s: float) -> tuple[Address, ...]:
        """Where the host can be reached.

        Raises
        ------
        OSError
            If that cannot be told, or not in this time.
        """
        if _is_address(self._host):
            return _asked(self._host, self._port)
        with self._lock:
            if self._pending is None:
                self._pending = self._begun()
            pending = self._pending
        if not pending.is_there.wait(limit_s):
            raise TimeoutError("its name is still being looked up")
        if pending.error is not None:
            raise OSError(str(pending.error)) from pending.error
        return pending.addresses

    def _begun(self) -> _Answer:
        answer = _Answer(threading.Event())
        # Orthanc's end does not wait for it
        asking = threading.Thread(target=self._ask, args=(answer,), daemon=True)
        try:
            asking.start()
        except RuntimeError as error:  # the system gives no more threads
            raise OSError(str(error)) from error
        return answer

    def _ask(self, answer: _Answer) -> None:
        try:
            answer.addresses = _asked(self._host, self._port)
        except OSError as error:
            answer.error = error
        except Exception as error:  # a name that cannot be encoded, such as one with two dots
            answer.error = OSError(type(error).__name__)
        with self._lock:
            self._pending = None
        answer.is_there.set()


def _asked(host: str, port: int | None) -> tuple[Address, ...]:
    return tuple(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
