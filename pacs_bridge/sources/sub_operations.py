"""What an archive says of the C-STORE sub-operations of a retrieval (PS3.4 C.4.2.1.6 ff.)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class SubOperations:
    """Numbers of a response; None where it does not say."""

    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None

    @classmethod
    def of(cls, status: Dataset) -> SubOperations:
        """From what comes with a status."""
        return cls(
            *(
                _number(status, f"NumberOf{kind}Suboperations")
                for kind in ("Remaining", "Completed", "Failed", "Warning")
            )
        )

    @property
    def has_any(self) -> bool:
        """Whether some was begun, however it ended, as far as is told."""
        return any((self.remaining, self.completed, self.failed, self.warning))

    def __str__(self) -> str:
        said = (
            (self.completed, "completed"),
            (self.failed, "failed"),
            (self.warning, "with a warning"),
            (self.remaining, "remaining"),
        )
        return ", ".join(f"{number} {what}" for number, what in said if number) or "none told"


def _number(status: Dataset, keyword: str) -> int | None:
    value = status.get(keyword)
    return value if isinstance(value, int) and value >= 0 else None
