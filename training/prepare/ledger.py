"""What an earlier run found, so that a later one keeps what is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference.reasons import Reason
from training.dataset import DatasetError
from training.prepare.mask_names import MASK_FOLDER
from training.prepare.outcome import ImageKept, Outcome, Remark, Rules, Split
from training.prepare.raw_case import IMAGE, CaseFiles
from training.prepare.raw_dataset import RawCase, is_case_name

#: Counts up when the same files give another outcome.
_FORMAT = 1


class OutcomeLedger:
    """One small file a case, beside the dataset.

    Parameters
    ----------
    root
        Of the prepared dataset.
    rules
        An outcome found under others is not this one's.
    """

    def __init__(self, root: Path, rules: Rules) -> None:
        self._root = root
        self._folder = root / ".prepare"
        self._rules = rules
        self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def lock(self) -> Path:
        """To be held while the dataset is made."""
        return self._folder / "lock"

    def source(self, case: RawCase) -> list[Any]:
        """What the outcome of a case depends on."""
        masks = case.folder / MASK_FOLDER
        paths = [case.folder / IMAGE, *(sorted(masks.iterdir()) if masks.is_dir() else ())]
        before = [_remark_record(remark) for remark in case.remarks]
        return [_FORMAT, asdict(self._rules), case.split, before, _stamps(paths)]

    def find(self, case: RawCase) -> Outcome | None:
        """What was found about the case, if its files and those made of it are as they were."""
        try:
            saved = json.loads(self._path(case.name).read_text(encoding="utf-8"))
            if saved["source"] != self.source(case):
                return None
            outcome = _outcome(saved["outcome"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if outcome.prepared and saved["made"] != self._made(case):
            return None
        return outcome

    def keep(self, case: RawCase, source: list[Any], outcome: Outcome) -> None:
        """Remember the outcome of what ``source`` was; its files are in place by now."""
        saved: dict[str, Any] = {"source": source, "outcome": asdict(outcome)}
        if outcome.prepared:
            saved["made"] = self._made(case)
        path = self._path(case.name)
        draft = path.with_name(f"{path.name}.draft-{os.getpid()}")
        draft.write_text(json.dumps(saved), encoding="utf-8")
        draft.replace(path)

    def forget(self, name: str) -> None:
        """Remove what was made of a case, from whichever set it was in.

        Raises
        ------
        DatasetError
            ``missing-case`` if no file of a case can be called so: it may lead elsewhere.
        """
        if not is_case_name(name):
            raise DatasetError(Reason.MISSING_CASE, f"{name!r} is no name of a case")
        self._path(name).unlink(missing_ok=True)
        for split in Split:
            files = CaseFiles.of(self._root, name, split)
            files.labels.unlink(missing_ok=True)
            files.image.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _made(self, case: RawCase) -> list[Any]:
        files = CaseFiles.of(self._root, case.name, case.split)
        return _stamps([files.image, files.labels])


def _stamps(paths: Iterable[Path]) -> list[Any]:
    """Name, size and time of files that are there."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append([path.name, stat.st_size, stat.st_mtime_ns])
    return found


def _remark_record(remark: Remark) -> list[Any]:
    return [remark.reason, remark.refuses, remark.file, remark.detail]


def _outcome(saved: dict[str, Any]) -> Outcome:
    return Outcome(
        case=saved["case"],
        split=Split(saved["split"]) if saved["split"] else None,
        remarks=tuple(
            Remark(Reason(r["reason"]), r["refuses"], r["file"], r["detail"])
            for r in saved["remarks"]
        ),
        image=ImageKept(saved["image"]) if saved["image"] else None,
    )
