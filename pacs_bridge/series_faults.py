"""Failures that may pass and are yet one series' own.

A source that is away fails every series: its jobs are tried again for as long as it takes. What
keeps one series from coming, while others come, would hold a run up for as long: these failures
count against the job. Workers and whoever feeds them go by the same table.
"""

from __future__ import annotations

from typing import Final

from inference.reasons import Reason

OF_ONE_SERIES: Final = frozenset(
    {
        # its list and its instances disagree, or a file of it cannot be read beside others
        Reason.SOURCE_INCOMPLETE,
    }
)
#: Instances may be on their way to the source: waits that double are minutes by then.
_FEWEST_TRIES: Final = 5


def counted_tries(reason: Reason, max_attempts: int) -> int | None:
    """How many failures of a kind that may pass end a job; None: only time does.

    Parameters
    ----------
    reason
        Of the failure.
    max_attempts
        Those that the site allows where a job may be what spoils its worker.
    """
    return max(max_attempts, _FEWEST_TRIES) if reason in OF_ONE_SERIES else None
