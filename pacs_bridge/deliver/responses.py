"""Responses are for the thread that waits for them.

In pynetdicom 3.0.4 an association's reactor thread takes DIMSE messages from the same queue as
the thread that sent a request, and drops a response as a message that nobody expects. The
pause that shall prevent this (``Association._reactor_checkpoint``) has a gap: the reactor says
that it pauses, finds that it need not, and is not yet running again when the sender believes
it; a response that comes at once is then lost, and the sender waits for ever.

An SCU is sent no requests, so its reactor has nothing to look for. It looks without waiting,
which the sender never does: that is how the two are told apart here.

That the association has ended is told by ``(None, None)`` in the queue, which goes where nobody
looks if a peer accepts and aborts at once, before the queue is ours. So whoever waits also looks
whether the thread that reads the connection still runs.
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pynetdicom.association import Association

_LOOK_INTERVAL_S = 0.5


def keep_responses(association: Association) -> None:
    """Hand each response to the thread that waits for it; before the first request."""
    association.dimse.msg_queue = _ResponseQueue(association)


class _ResponseQueue:
    """What ``DIMSEServiceProvider`` needs of its queue; whoever does not wait finds it empty."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, response: object) -> None:
        """A response came, or ``(None, None)``: the association has ended."""
        self._responses.put(response)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next response, or ``(None, None)``; raises ``queue.Empty`` if none comes in time."""
        if not block:
            raise queue.Empty
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while True:
            has_ended = self._has_ended()  # before the look: nothing is put in after the end
            try:
                return self._responses.get(timeout=0.0 if has_ended else _LOOK_INTERVAL_S)
            except queue.Empty:
                if has_ended:
                    return None, None
                if deadline_s is not None and time.monotonic() >= deadline_s:
                    raise

    def _has_ended(self) -> bool:
        return not self._association.dul.is_alive() or not self._association.is_established
