"""Responses are for the thread that waits for them.

In pynetdicom 3.0.4 an association's reactor thread takes DIMSE messages from the same queue as
the thread that sent a request, and drops a response as a message that nobody expects. The
pause that shall prevent this (``Association._reactor_checkpoint``) has a gap: the reactor says
that it pauses, finds that it need not, and is not yet running again when the sender believes
it; a response that comes at once is then lost, and the sender waits for ever.

An SCU is sent no requests, so its reactor has nothing to look for. It looks without waiting,
which the sender never does: that is how the two are told apart here.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pynetdicom.association import Association


def keep_responses(association: Association) -> None:
    """Hand each response to the thread that waits for it; before the first request."""
    association.dimse.msg_queue = _ResponseQueue()


class _ResponseQueue:
    """What ``DIMSEServiceProvider`` needs of its queue; whoever does not wait finds it empty."""

    def __init__(self) -> None:
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, response: object) -> None:
        """A response came, or ``(None, None)``: the association has ended."""
        self._responses.put(response)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next response; raises ``queue.Empty`` if none comes in time."""
        if not block:
            raise queue.Empty
        return self._responses.get(timeout=timeout)
