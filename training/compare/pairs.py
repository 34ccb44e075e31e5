"""Which files of two folders are the same scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from training.dataset import case_name
from training.errors import TrainingError
from training.evaluation.outcome import CaseFailure


@dataclass(frozen=True, slots=True)
class FilePair:
    """Two segmentation files of one scan."""

    name: str
    first: Path
    second: Path


def find_pairs(first: Path, second: Path) -> tuple[tuple[FilePair, ...], tuple[CaseFailure, ...]]:
    """Two files, or the files of two folders that have the same name but for their suffix.

    A folder within the folder is a case if it holds exactly one file. What has no counterpart
    is returned as ``unpaired``.

    Raises
    ------
    TrainingError
        ``no-cases`` if there is no pair; ``duplicate-case`` if two files claim one name.
    """
    if first.is_file() and second.is_file():
        return (FilePair(_name(first), first, second),), ()
    if not (first.is_dir() and second.is_dir()):
        raise TrainingError(Reason.NO_CASES, f"{first} and {second}: two files or two folders")
    left, right = _files(first), _files(second)
    pairs = tuple(
        FilePair(name, left[name], right[name]) for name in sorted(left.keys() & right.keys())
    )
    if not pairs:
        raise TrainingError(Reason.NO_CASES, f"{first} and {second}: no file name in common")
    alone = tuple(
        CaseFailure(name, Reason.UNPAIRED, f"in {'A' if name in left else 'B'} only")
        for name in sorted(left.keys() ^ right.keys())
    )
    return pairs, alone


def _files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        name, found = _name(path), path
        if path.is_dir():
            within = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
            if len(within) != 1 or not within[0].is_file():
                continue
            name, found = path.name, within[0]
        if name in files:
            raise TrainingError(Reason.DUPLICATE_CASE, f"{files[name]}, {found}")
        files[name] = found
    return files


def _name(path: Path) -> str:
    return case_name(path) or path.stem
