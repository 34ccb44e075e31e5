"""Fences of jobs that were handed over.

The high bits are the fence of the ledger's claim. The low ones rise with each lease by a number
that was drawn: a database that was lost or restored leases a job anew and knows nothing of the
fences that it gave before, and two of the same number would share a folder of results.
"""

from __future__ import annotations

import secrets

_LEDGER_SHIFT = 40
_STEP_BITS = 24  #: room for 65,536 leases of one claim of the ledger


def first_fence(ledger_fence: int) -> int:
    """The fence that a job begins with when it is handed over.

    Fences of the queue and of the ledger never meet: both name folders of results.
    """
    return ledger_fence << _LEDGER_SHIFT


def next_fence(fence: int) -> int:
    """The fence of the next lease; above the last one, and no other lease's."""
    return fence + 1 + secrets.randbits(_STEP_BITS)


def ledger_fence_of(fence: int) -> int:
    """The ledger's fence under which a job was handed over."""
    return fence >> _LEDGER_SHIFT
