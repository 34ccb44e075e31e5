"""Where the label maps to be judged come from: a model that runs now, or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from inference.label_map import LabelMap
from inference.nifti import open_nifti, read_label_nifti, read_nifti
from inference.reasons import Reason
from inference.segmenter import Segmenter
from inference.structures import STRUCTURE_COUNT
from training.compare.label_values import values_within
from training.dataset import ScanPair
from training.errors import TrainingError

_MAX_VOXELS = 1_500_000_000


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


def read_v1_labels(path: Path) -> LabelMap:
    """Read structure ids, unless the label table within the file gives them other names.

    Raises
    ------
    InferenceError
        As ``read_label_nifti``; ``unknown-label`` if the file's own table is not that of v1.
    """
    values = values_within(open_nifti(path, _MAX_VOXELS).header.extensions)
    if values is not None:
        others = [
            f"{value} is {name}"
            for value, name in sorted(values.names.items())
            if value <= STRUCTURE_COUNT and values.structure_ids.get(value) != value
        ]
        if others:
            raise TrainingError(
                Reason.UNKNOWN_LABEL,
                f"{path}: its label table is not that of v1: {', '.join(others[:3])}",
            )
    return read_label_nifti(path, _MAX_VOXELS)
