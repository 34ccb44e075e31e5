"""What a run was made of: written into its checkpoints, read back by resume and export."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from pydantic import TypeAdapter, ValidationError

from inference.network import NetworkSpec
from inference.reasons import Reason
from inference.windows import Precision
from training.augmentation.settings import Augmentation
from training.case import Case, CaseRecipe
from training.errors import TrainingError
from training.plan import Plan


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that decides the weights of a run, and who took part."""

    recipe: CaseRecipe
    network: NetworkSpec
    plan: Plan
    augmentation: Augmentation
    seed: int
    precision: Precision
    training: tuple[str, ...]  #: names of the cases
    validation: tuple[str, ...]
    data: str = ""  #: digest of what the cases hold, under whatever name
    versions: tuple[tuple[str, str], ...] = (
        ("torch", version("torch").split("+")[0]),
        ("monai", version("monai")),
    )

    def to_json(self) -> str:
        """Text of one line."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str, where: str) -> RunRecord:
        """Read it back; ``where`` names the file in errors.

        Raises
        ------
        TrainingError
            ``checkpoint``.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise TrainingError(
                Reason.CHECKPOINT, f"{where}: {error.error_count()} faults in its record"
            ) from error

    def differences(self, other: RunRecord) -> tuple[str, ...]:
        """Names of what differs; versions of libraries may."""
        names = (name for name in RunRecord.__slots__ if name != "versions")
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


def case_name(case: Case) -> str:
    """As in its dataset: the cache adds where the scan lay, which says nothing elsewhere."""
    return re.sub(r"-[0-9a-f]{8}$", "", case.folder.name)


def data_digest(cases: Iterable[Case]) -> str:
    """SHA-256 of the fingerprints of these cases, in order."""
    return hashlib.sha256("".join(case.fingerprint() for case in cases).encode()).hexdigest()


_ADAPTER = TypeAdapter(RunRecord)
