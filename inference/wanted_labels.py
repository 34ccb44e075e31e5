"""Labels that somebody asked for, by the names of structures and of groups of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from inference.label_map import BACKGROUND, LabelMap
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES


@cache
def structure_groups() -> dict[str, tuple[str, ...]]:
    """Names of structures by the name of their group, from ``data/structure_groups.csv``."""
    table = (files("inference") / "data" / "structure_groups.csv").read_text(encoding="utf-8")
    groups: dict[str, list[str]] = {}
    for row in csv.DictReader(table.splitlines()):
        groups.setdefault(row["group"], []).append(row["structure"])
    return {group: tuple(names) for group, names in groups.items()}


def named_structures(names: Iterable[str]) -> tuple[str, ...]:
    """Structures by their own names or those of groups, each once, in the order of their ids.

    Raises
    ------
    ValueError
        If a name is neither that of a structure nor that of a group.
    """
    groups = structure_groups()
    wanted: set[str] = set()
    for name in names:
        if name in groups:
            wanted.update(groups[name])
        elif name in STRUCTURE_BY_NAME:
            wanted.add(name)
        else:
            known = ", ".join(sorted(groups))
            raise ValueError(f"no such structure: {name!r}; groups are {known}")
    return tuple(each.name for each in STRUCTURES if each.name in wanted)


def wanted_labels(structures: Iterable[str]) -> npt.NDArray[np.bool_]:
    """``(256,)``, which labels are wanted: those of the named structures, or all if none is."""
    ids = [STRUCTURE_BY_NAME[name].id for name in structures]
    wanted = np.full(256, not ids)
    wanted[ids] = True
    wanted[BACKGROUND] = False
    return wanted


def keep_labels(label_map: LabelMap, wanted: npt.NDArray[np.bool_]) -> None:
    """Make labels background that are not wanted, in place."""
    if wanted[1:].all():
        return
    table = np.where(wanted, np.arange(256), BACKGROUND).astype(np.uint8)
    for plane in label_map.labels:
        plane[...] = table[plane]
