"""Where the label maps to be judged come from: a model that runs now, or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from inference.label_map import LabelMap
from inference.nifti import read_nifti
from inference.reasons import Reason
from inference.segmenter import Segmenter
from training.dataset import ScanPair
from training.errors import TrainingError
from training.v1_labels import read_v1_labels


@runtime_checkable
class LabelSource(Protocol):
    """Gives a label map for a scan."""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What its label maps depend on, as name and value."""

    def inputs(self, pair: ScanPair) -> tuple[Path, ...]:
        """Files that the label map of a case is made from."""

    def label_map(self, pair: ScanPair) -> LabelMap:
        """The label map of a case.

        Raises
        ------
        InferenceError
            If there is none.
        """


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """A model run on the scan as the clinic runs it, on the scan's own planes."""

    segmenter: Segmenter

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Name, version, digest and settings of the model."""
        identity = self.segmenter.identity
        return (
            ("model", f"{identity.name} {identity.version}"),
            ("weights, SHA-256", identity.digest),
            ("intended use", identity.intended_use),
            *identity.parameters,
        )

    def inputs(self, pair: ScanPair) -> tuple[Path, ...]:
        """The scan."""
        return (pair.image,)

    def label_map(self, pair: ScanPair) -> LabelMap:
        """Read the scan and segment it."""
        return self.segmenter.segment(read_nifti(pair.image))


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """Label files made before: ``NAME.nii.gz`` or ``NAME.nii`` for case NAME, v1 ids."""

    folder: Path

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The name of the folder."""
        return (("predictions", self.folder.name),)

    def inputs(self, pair: ScanPair) -> tuple[Path, ...]:
        """The label file."""
        return (self._file(pair),)

    def label_map(self, pair: ScanPair) -> LabelMap:
        """Read the label file."""
        return read_v1_labels(self._file(pair))

    def _file(self, pair: ScanPair) -> Path:
        for suffix in (".nii.gz", ".nii"):
            path = self.folder / f"{pair.name}{suffix}"
            if path.is_file():
                return path
        raise TrainingError(Reason.MISSING_LABELS, f"{self.folder}: no {pair.name}.nii.gz")
