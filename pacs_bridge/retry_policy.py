"""How long to wait between attempts, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential waiting: ``first_wait_s``, doubled after each attempt, up to ``max_wait_s``.

    It is never less than ``least_wait_s``, which the other side asked for.
    """

    first_wait_s: float
    max_wait_s: float
    give_up_after_s: float  #: since the first attempt
    max_attempts: int | None = None  #: that count; None: only time ends it
    least_wait_s: float = 0.0

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th attempt failed; the first one is 1."""
        doublings = min(attempt - 1, 63)  # a float holds 2**63; a week of attempts is fewer
        wait_s = min(self.first_wait_s * 2.0**doublings, self.max_wait_s)
        return float(max(wait_s, self.least_wait_s))

    def is_over(self, attempt: int, since_first_s: float) -> bool:
        """Whether the ``attempt``-th failure was the last."""
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return True
        return since_first_s >= self.give_up_after_s
