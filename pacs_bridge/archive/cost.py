"""What seconds cost on a machine that is paid by the hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class MachineCost:
    """The price of one machine.

    Stages of different series overlap on a machine: what all stages cost together is what they
    would cost one after the other, and may be more than the machine cost while it ran.
    """

    an_hour: float  #: in any money

    def of(self, seconds: float) -> float:
        """So many seconds, in the same money."""
        return self.an_hour * seconds / _HOUR_S

    def of_known(self, seconds: float | None) -> float | None:
        """The same; None of what is not known."""
        return None if seconds is None else self.of(seconds)

    def by_stage(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Every stage, and ``all`` of them together."""
        costs = {str(stage): self.of(value) for stage, value in seconds.items()}
        return costs | {"all": sum(costs.values())}
