"""A folder of scans and label files: ``imagesTr``, ``labelsTr``, ``imagesTs``, ``labelsTs``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from training.errors import TrainingError

_SUFFIXES = (".nii.gz", ".nii")
#: Faults that an error quotes; the rest is counted.
_QUOTED = 5


class DatasetError(TrainingError):
    """A dataset, or a case of it, that cannot be used; the detail names it."""


@dataclass(frozen=True, slots=True)
class ScanPair:
    """A scan and its truth."""

    name: str  #: of the case: the file name without its suffix
    image: Path
    labels: Path | None  #: None where the truth is not known


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """A dataset in the layout that the published commands expect.

    Image and label file of a case have the same name, ``.nii.gz`` or ``.nii``. Hidden files
    and others are left alone.
    """

    root: Path

    def training_pairs(self) -> tuple[ScanPair, ...]:
        """The cases of ``imagesTr`` and ``labelsTr``, by name.

        Raises
        ------
        DatasetError
            ``no-cases`` if there is none; ``duplicate-case`` if two files claim one name;
            ``missing-labels`` or ``missing-image`` if one lacks its other half. All faults
            of a kind are reported at once.
        """
        images = _nifti_files(self.root / "imagesTr")
        labels = _nifti_files(self.root / "labelsTr")
        _refuse_any(Reason.MISSING_LABELS, [images[n] for n in sorted(images.keys() - labels)])
        _refuse_any(Reason.MISSING_IMAGE, [labels[n] for n in sorted(labels.keys() - images)])
        return tuple(ScanPair(name, image, labels[name]) for name, image in images.items())

    def test_pairs(self) -> tuple[ScanPair, ...]:
        """The cases of ``imagesTs``, by name, with labels where ``labelsTs`` has them.

        Raises
        ------
        DatasetError
            ``no-cases`` if there is none; ``duplicate-case``; ``missing-image`` if a label
            file has no scan.
        """
        images = _nifti_files(self.root / "imagesTs")
        folder = self.root / "labelsTs"
        labels = _nifti_files(folder) if folder.is_dir() and any(folder.iterdir()) else {}
        _refuse_any(Reason.MISSING_IMAGE, [labels[n] for n in sorted(labels.keys() - images)])
        return tuple(ScanPair(name, image, labels.get(name)) for name, image in images.items())


def case_name(path: Path) -> str | None:
    """The file name without ``.nii.gz`` or ``.nii``; None for other and hidden files."""
    if path.name.startswith("."):
        return None
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix) and len(path.name) > len(suffix):
            return path.name.removesuffix(suffix)
    return None


def _nifti_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    twice = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = case_name(path)
        if name is None or not path.is_file():
            continue
        if name in files:
            twice.append(path)
        files[name] = path
    _refuse_any(Reason.DUPLICATE_CASE, twice)
    if not files:
        raise DatasetError(Reason.NO_CASES, f"{folder}: no .nii.gz or .nii file")
    return dict(sorted(files.items()))


def _refuse_any(reason: Reason, paths: list[Path]) -> None:
    if paths:
        quoted = ", ".join(str(path) for path in paths[:_QUOTED])
        more = f" and {len(paths) - _QUOTED} more" if len(paths) > _QUOTED else ""
        raise DatasetError(reason, quoted + more)
