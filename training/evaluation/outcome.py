"""What came of the cases: figures, or a coded reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.reasons import Reason
from training.evaluation.figures import CaseFigures


@dataclass(frozen=True, slots=True)
class CaseFailure:
    """A case that could not be measured; the others go on."""

    name: str
    reason: Reason
    detail: str


CaseOutcome = CaseFigures | CaseFailure


@dataclass(frozen=True, slots=True)
class Labels:
    """What the two sides are called."""

    title: str
    reference: str
    other: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All cases, in order, and what was compared."""

    labels: Labels
    facts: tuple[tuple[str, str], ...]  #: what the figures rest on, as name and value
    cases: tuple[CaseFigures, ...]
    failures: tuple[CaseFailure, ...]
    remarks: tuple[tuple[str, str], ...] = ()  #: case and what is worth saying about it

    @classmethod
    def of(
        cls,
        labels: Labels,
        facts: Sequence[tuple[str, str]],
        outcomes: Sequence[CaseOutcome],
        remarks: Sequence[tuple[str, str]] = (),
    ) -> Outcome:
        """Sort figures from failures."""
        return cls(
            labels,
            tuple(facts),
            tuple(o for o in outcomes if isinstance(o, CaseFigures)),
            tuple(o for o in outcomes if isinstance(o, CaseFailure)),
            tuple(remarks),
        )
