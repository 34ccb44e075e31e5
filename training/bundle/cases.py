"""Which scans a bundle trains on and is judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inference.reasons import Reason
from training.dataset import DatasetError, DatasetFolder, ScanPair, case_name
from training.preset import Preset

IMAGE_KEY, LABEL_KEY = "image", "label"
Item = dict[str, str]


class Listed(Protocol):
    """The part of a MONAI ``Dataset`` that is used: what it was made of."""

    @property
    def data(self) -> Sequence[Mapping[str, Any]]:
        """One item a scan, with its paths."""


@dataclass(frozen=True, slots=True)
class SplitCases:
    """Items for MONAI datasets: paths under ``image`` and ``label``."""

    training: tuple[Item, ...]
    validation: tuple[Item, ...]


def split_cases(
    dataset_dir: str,
    recipe: Preset,
    validation_cases: int | None = None,
    images: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> SplitCases:
    """The scans of a dataset, the last ones by name for validation.

    Parameters
    ----------
    dataset_dir
        Holds ``imagesTr`` and ``labelsTr``.
    recipe
        Its split is taken where nothing else is asked for.
    validation_cases
        How many are judged on, in place of the number of the preset.
    images, labels
        Files in place of those of ``dataset_dir``; they meet by name, not by order.

    Raises
    ------
    DatasetError
        As ``DatasetFolder.training_pairs``.
    TrainingError
        ``training-preset`` if no case is left to train on.
    """
    if images is None and labels is None:
        pairs = DatasetFolder(Path(dataset_dir)).training_pairs()
    else:
        pairs = _meeting(images or (), labels or ())
    split = recipe.split
    if validation_cases is not None:
        split = dataclasses.replace(split, validation_cases=validation_cases)
    training, validation = (tuple(map(_item, part)) for part in split.of(pairs))
    return SplitCases(training, validation)


def scan_pairs(dataset: Listed) -> tuple[ScanPair, ...]:
    """What a MONAI dataset lists.

    Raises
    ------
    DatasetError
        ``duplicate-case`` if two scans have one name: results are kept by it.
    """
    pairs = []
    for item in dataset.data:
        image, label = Path(item[IMAGE_KEY]), item.get(LABEL_KEY)
        pairs.append(
            ScanPair(case_name(image) or image.name, image, Path(label) if label else None)
        )
    names = [pair.name for pair in pairs]
    for pair in pairs:
        if names.count(pair.name) > 1:
            raise DatasetError(Reason.DUPLICATE_CASE, f"{pair.image}: {pair.name} is there twice")
    return tuple(pairs)


def _meeting(images: Sequence[str], labels: Sequence[str]) -> tuple[ScanPair, ...]:
    truth = {case_name(Path(path)): Path(path) for path in labels}
    pairs = scan_pairs(_List([{IMAGE_KEY: path} for path in sorted(images)]))
    for pair in pairs:
        if pair.name not in truth:
            raise DatasetError(Reason.MISSING_LABELS, f"{pair.image}: none of labels is its truth")
    return tuple(ScanPair(pair.name, pair.image, truth[pair.name]) for pair in pairs)


def _item(pair: ScanPair) -> Item:
    return {IMAGE_KEY: str(pair.image), LABEL_KEY: str(pair.labels)}


@dataclass(frozen=True, slots=True)
class _List:
    data: Sequence[Mapping[str, Any]]
