"""Whose turn it is at a port that several fetches on one machine share."""

from __future__ import annotations

import errno
import socket


class PortTurn:
    """Held by one fetch at a time, of whatever process; the end of the process gives it back.

    So a port that is taken while one has the turn is taken by a foreign program.

    Parameters
    ----------
    address, port
        That will be bound.
    """

    def __init__(self, address: str, port: int) -> None:
        # unix(7), abstract: of the same network namespace as the port, and nothing on a disk
        self._name = f"\0pacs-bridge-fetch-{address}-{port}"
        self._is_shared = port != 0
        self._socket: socket.socket | None = None

    def take(self) -> bool:
        """Take it; False if another has it."""
        if not self._is_shared or self._socket is not None:
            return True
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            held.bind(self._name)
        except OSError as error:
            held.close()
            # a system without such names has no turns: then the port itself decides
            return error.errno != errno.EADDRINUSE
        self._socket = held
        return True

    def give_back(self) -> None:
        """Let the next one have it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
