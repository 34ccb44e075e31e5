"""Which file of a raw case is the mask of which structure."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES
from training.prepare.outcome import Remark

MASK_SUFFIX = ".nii.gz"
MASK_FOLDER = "segmentations"
#: A name this close to that of a missing mask is taken for a slip of the pen.
_ALIKE = 0.8


@dataclass(frozen=True, slots=True)
class V2Structure:
    """A structure that TotalSegmentator v2 has and v1 has not."""

    name: str
    joins: str | None  #: the v1 structure that it is a part of
    shows_absence_of: tuple[str, ...]  #: v1 structures that lie in or at it


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The masks of a case."""

    masks: tuple[tuple[int, Path], ...]  #: structure id and file, in the order of the list
    #: v1 structures without a mask, and the v2 masks that are empty if the structure is absent
    absent_if_empty: Mapping[str, tuple[Path, ...]]
    remarks: tuple[Remark, ...]


@cache
def v2_structures() -> Mapping[str, V2Structure]:
    """The structures of v2 that v1 does not have, by name."""
    table = (files("training") / "data" / "totalsegmentator_v2.csv").read_text(encoding="utf-8")
    return MappingProxyType(
        {
            row["name"]: V2Structure(
                row["name"], row["joins"] or None, tuple(row["shows_absence_of"].split())
            )
            for row in csv.DictReader(table.splitlines())
        }
    )


def find_masks(folder: Path, remap_v2: bool) -> MaskFiles:
    """Match the files of ``segmentations`` with the class list.

    Parameters
    ----------
    folder
        Of the masks; need not exist.
    remap_v2
        Take names of TotalSegmentator v2 as well.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        remark = Remark(Reason.MISSING_MASK, True, MASK_FOLDER, "no mask at all")
        return MaskFiles((), {}, (remark,))
    named = {
        path.name.removesuffix(MASK_SUFFIX): path
        for path in paths
        if path.name.endswith(MASK_SUFFIX) and path.is_file()
    }
    masks = [(s.id, named[s.name]) for s in STRUCTURES if s.name in named]
    missing = {s.name for s in STRUCTURES} - named.keys()
    newer = {name: named[name] for name in named.keys() & v2_structures().keys()}
    known = STRUCTURE_BY_NAME.keys() | newer.keys()
    others = [path for path in paths if named.get(_stem(path)) != path or _stem(path) not in known]
    remarks, explained = _strangers(others, missing)
    absent_if_empty: dict[str, tuple[Path, ...]] = {}
    if newer:
        remarks.append(_about_v2(newer, remap_v2))
        if remap_v2:
            masks += _joining(newer)
            absent_if_empty = _witnesses(missing, newer)
            remarks += _lacking_parts(newer)
        else:
            explained |= {name for v2 in v2_structures().values() for name in v2.shows_absence_of}
    remarks += [
        Remark(Reason.MISSING_MASK, True, f"{MASK_FOLDER}/{s.name}{MASK_SUFFIX}", "no such file")
        for s in STRUCTURES
        if s.name in missing - explained - absent_if_empty.keys()
    ]
    return MaskFiles(tuple(sorted(masks)), absent_if_empty, tuple(remarks))


def _stem(path: Path) -> str:
    return path.name.removesuffix(MASK_SUFFIX)


def _strangers(paths: list[Path], missing: set[str]) -> tuple[list[Remark], set[str]]:
    """Remarks on files that are no masks by their names, and the structures that they mean."""
    remarks: list[Remark] = []
    meant: set[str] = set()
    for path in paths:
        stem = path.name.split(".")[0].strip().replace("-", "_").replace(" ", "_").lower()
        by_lower = {name.lower(): name for name in missing - meant}
        close = difflib.get_close_matches(stem, by_lower, n=1, cutoff=_ALIKE)
        file = f"{MASK_FOLDER}/{path.name}"
        if close:
            name = by_lower[close[0]]
            meant.add(name)
            wanted = f"perhaps {name}{MASK_SUFFIX}"
            remarks.append(Remark(Reason.MISNAMED_MASK, True, file, wanted))
        else:
            remarks.append(Remark(Reason.EXTRA_MASK, False, file, "left out"))
    return remarks, meant


def _about_v2(newer: Mapping[str, Path], remap_v2: bool) -> Remark:
    if not remap_v2:
        names = ", ".join(sorted(newer))
        return Remark(Reason.V2_NAMES, True, MASK_FOLDER, f"{names}: prepare with --remap-v2")
    joined = [
        f"{v2.name} joins {v2.joins}"
        for n, v2 in v2_structures().items()
        if n in newer and v2.joins
    ]
    left_out = [n for n, v2 in v2_structures().items() if n in newer and not v2.joins]
    detail = "; ".join([*joined, f"background: {', '.join(left_out) or 'none'}"])
    return Remark(Reason.V2_REMAPPED, False, MASK_FOLDER, detail)


def _lacking_parts(newer: Mapping[str, Path]) -> list[Remark]:
    """In v2 a structure of v1 is whole only with the parts that have names of their own."""
    return [
        Remark(
            Reason.MISSING_MASK,
            True,
            f"{MASK_FOLDER}/{v2.name}{MASK_SUFFIX}",
            f"no such file; in v2 it is no part of {v2.joins}",
        )
        for v2 in v2_structures().values()
        if v2.joins and v2.name not in newer
    ]


def _joining(newer: Mapping[str, Path]) -> list[tuple[int, Path]]:
    joins = ((v2_structures()[name].joins, path) for name, path in newer.items())
    return [(STRUCTURE_BY_NAME[joined].id, path) for joined, path in joins if joined]


def _witnesses(missing: set[str], newer: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """For each missing structure the v2 masks that tell whether it is absent; all must be there."""
    found = {}
    for name in missing:
        telling = [v2.name for v2 in v2_structures().values() if name in v2.shows_absence_of]
        if telling and all(v2_name in newer for v2_name in telling):
            found[name] = tuple(newer[v2_name] for v2_name in telling)
    return found
