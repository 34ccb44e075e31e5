"""The raw dataset: a folder a case, and ``meta.csv`` with the split."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from training.dataset import DatasetError
from training.prepare.outcome import Outcome, Remark, Split

META = "meta.csv"
#: What the column ``split`` says. The published recipe takes its validation cases from the
#: training set.
_SPLITS = {"train": Split.TRAINING, "val": Split.TRAINING, "test": Split.TEST}
#: File systems take 255 bytes; drafts and suffixes are added to the name.
_NAME_BYTES = 230


@dataclass(frozen=True, slots=True)
class RawCase:
    """A case to prepare."""

    name: str
    folder: Path
    split: Split
    remarks: tuple[Remark, ...] = ()  #: known before it is looked at


@dataclass(frozen=True, slots=True)
class RawDataset:
    """What a raw dataset holds."""

    cases: tuple[RawCase, ...]
    left_out: tuple[Outcome, ...]  #: cases without a split or without a folder


def read_raw_dataset(root: Path) -> RawDataset:
    """List the cases of a raw dataset, by name.

    Without ``meta.csv`` all cases are for training, each with a remark. With it, a case that
    it does not assign is left out: it might be one of the test set.

    Raises
    ------
    DatasetError
        ``no-cases`` if there is no folder of a case; ``no-split`` if ``meta.csv`` is no
        table with columns ``image_id`` and ``split``.
    """
    folders = {
        path.name: path
        for path in sorted(root.iterdir() if root.is_dir() else ())
        if path.is_dir() and not path.name.startswith(".")
    }
    if not folders:
        raise DatasetError(Reason.NO_CASES, f"{root}: no folder of a case")
    meta = root / META
    if not meta.exists():
        remark = Remark(Reason.NO_SPLIT, False, "", f"no {META}: taken for training")
        found = [RawCase(n, path, Split.TRAINING, (remark,)) for n, path in folders.items()]
        return RawDataset(tuple(found), ())
    table = _read_meta(meta)
    cases, left_out = [], []
    for name, path in folders.items():
        split, trouble = _assigned(table.get(name, set()))
        if split is None:
            remark = Remark(Reason.NO_SPLIT, True, "", trouble)
            left_out.append(Outcome(name, None, (remark,)))
        else:
            cases.append(RawCase(name, path, split))
    for name in sorted(table.keys() - folders):
        trouble = "no such folder" if is_case_name(name) else "that is no name of a folder"
        remark = Remark(Reason.MISSING_CASE, True, "", f"in {META}, but {trouble}")
        left_out.append(Outcome(name, _assigned(table[name])[0], (remark,)))
    return RawDataset(tuple(cases), tuple(left_out))


def is_case_name(name: str) -> bool:
    """Whether files of a case can be called so: a single part of a path, not too long."""
    return (
        name not in ("", ".", "..")
        and not any(sign in name for sign in "/\0")
        and len(name.encode("utf-8", "surrogateescape")) <= _NAME_BYTES
    )


def _read_meta(path: Path) -> Mapping[str, set[str]]:
    """All splits that the table names for each case; the dataset separates by semicolon."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        rows = csv.DictReader(text.splitlines(), delimiter=";" if ";" in first else ",")
        columns = set(rows.fieldnames or ())
        if not {"image_id", "split"} <= columns:
            raise DatasetError(Reason.NO_SPLIT, f"{path}: no columns image_id and split")
        table: dict[str, set[str]] = {}
        for row in rows:
            name = (row["image_id"] or "").strip()
            if name:
                table.setdefault(name, set()).add((row["split"] or "").strip().lower())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(Reason.NO_SPLIT, f"{path}: {error}") from error
    return table


def _assigned(said: set[str]) -> tuple[Split | None, str]:
    """The split, or what is wrong with what the table says."""
    if not said:
        return None, f"not in {META}"
    splits = {_SPLITS.get(word) for word in said}
    if len(splits) == 1 and None not in splits:
        return splits.pop(), ""
    return None, f"split is {', '.join(sorted(said)) or 'empty'} in {META}"
