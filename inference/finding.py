"""Something worth saying about a series that was processed all the same."""

from __future__ import annotations

from dataclasses import dataclass

from inference.reasons import Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """A coded remark that travels with a result, into its report and its SEG.

    Parameters
    ----------
    reason
        The closed code.
    detail
        The measured value with its unit, for people; free of patient data.
    """

    reason: Reason
    detail: str
