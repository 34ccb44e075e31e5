"""Whose turn it is at a port that several fetches on one machine share: first come, first served.

Whoever has the turn, and whoever waits for it, holds a socket of a name; the end of a process
gives its names back. Names are seen in /proc/net/unix (proc(5)), and a name of one who waits says
since when.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path

_NAMES = Path("/proc/net/unix")
#: So often one who came first may leave a free turn before it is no longer waited for: its
#: process may have been stopped.
_MOST_LEFT = 20


class PortTurn:
    """Held by one fetch at a time, of whatever process.

    So a port that is taken while one has the turn is taken by a foreign program. For one thread.

    Parameters
    ----------
    address, port
        That will be bound.
    steady_ns
        Nanoseconds that never step, the same in every process of the machine.
    """

    def __init__(
        self, address: str, port: int, steady_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        # unix(7), abstract: of the same network namespace as the port, and nothing on a disk
        self._name = f"pacs-bridge-fetch-{address}-{port}"
        self._is_shared = port != 0
        self._steady_ns = steady_ns
        self._place = ""  #: the name under which this one waits
        self._waiting: socket.socket | None = None
        self._held: socket.socket | None = None
        self._left = 0

    def take(self) -> bool:
        """Take it; False if another has it, or waits for it and came before."""
        if not self._is_shared or self._held is not None:
            return True
        self._line_up()
        if self._is_left_to_others():
            return False
        try:
            self._held = _bound(self._name)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            # a system without such names has no turns: then the port itself decides
        self._leave_line()
        return True

    def give_back(self) -> None:
        """Let the next one have it, whether it was had or waited for."""
        self._leave_line()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _line_up(self) -> None:
        while self._waiting is None:
            self._place = f"{self._name}-wait-{self._steady_ns():020d}"
            try:
                self._waiting = _bound(self._place)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # such as two in one nanosecond
                    return

    def _leave_line(self) -> None:
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def _is_left_to_others(self) -> bool:
        """Whether somebody has it, or came before and may yet take it."""
        if self._waiting is None:
            return False
        names = self._names()
        if self._name in names:
            self._left = 0
            return True
        first = min((each for each in names if each != self._name), default=self._place)
        if first >= self._place:
            return False
        self._left += 1
        return self._left <= _MOST_LEFT

    def _names(self) -> set[str]:
        """Of this port: who has the turn and who waits for it."""
        try:
            lines = _NAMES.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # then whoever asks first has it
            return set()
        names = {line.rpartition(" @")[2] for line in lines if " @" in line}
        waiting = f"{self._name}-wait-"
        return {each for each in names if each == self._name or each.startswith(waiting)}


def _bound(name: str) -> socket.socket:
    """A socket of an abstract name."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.bind(f"\0{name}")
    except OSError:
        made.close()
        raise
    return made
