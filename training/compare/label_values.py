"""What the values of a label file stand for."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES
from training.compare.matching import structure_by_name
from training.errors import TrainingError

#: Label files hold no larger ones.
MAX_VALUE = 65535
_LABEL = re.compile(r'<Label\b[^>]*\bKey="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]+)')


class Numbering(StrEnum):
    """Label tables that are known by a name."""

    AUTO = "auto"  #: the table within the file, and where it has none, v1
    V1 = "v1"  #: TotalSegmentator v1, the ids of this project
    V2 = "v2"  #: TotalSegmentator v2


@dataclass(frozen=True, slots=True)
class LabelValues:
    """Values and what they are called.

    Parameters
    ----------
    names
        Value to name, background left out.
    structure_ids
        Value to id, of those that are structures of the class list.
    source
        Where the names come from, for the report.
    """

    names: Mapping[int, str]
    structure_ids: Mapping[int, int]
    source: str

    @classmethod
    def named(cls, names: Mapping[int, str], source: str) -> LabelValues:
        """Match names to structures."""
        found = {value: structure_by_name(name) for value, name in names.items()}
        ids = {value: i for value, i in found.items() if i is not None}
        return cls(MappingProxyType(dict(names)), MappingProxyType(ids), source)


def known_values(numbering: Numbering) -> LabelValues:
    """The table of v1 or v2.

    Of v2, the S1 vertebra counts as sacrum, as in v1; the heart and what else v1 does not have
    as one structure count as nothing.
    """
    if numbering is Numbering.V2:
        table = files("training") / "data" / "totalsegmentator_v2_values.csv"
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
        names = {int(row["value"]): row["name"] for row in rows}
        ids = {
            int(row["value"]): STRUCTURE_BY_NAME[row["structure"]].id
            for row in rows
            if row["structure"]
        }
        return LabelValues(MappingProxyType(names), MappingProxyType(ids), "TotalSegmentator v2")
    names = {structure.id: structure.name for structure in STRUCTURES}
    return LabelValues.named(names, "TotalSegmentator v1")


def read_values(path: Path) -> LabelValues:
    """Read a CSV file with the columns ``value`` and ``name``.

    Raises
    ------
    TrainingError
        ``unreadable-file`` if it cannot be read, lacks a column, or names a value that no
        label file can hold; all faulty lines at once.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {error}") from error
    names: dict[int, str] = {}
    faults = []
    for line, row in enumerate(rows, start=2):
        value, name = (row.get("value") or "").strip(), (row.get("name") or "").strip()
        if not value.isdecimal() or not name or int(value) in names or int(value) > MAX_VALUE:
            faults.append(f"line {line}: {value!r} {name!r}")
        elif int(value):
            names[int(value)] = name
    if faults or not names:
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {'; '.join(faults) or 'no names'}")
    return LabelValues.named(names, path.name)


def values_within(extensions: Iterable[Any]) -> LabelValues | None:
    """The label table that TotalSegmentator and Connectome tools write into a NIfTI header."""
    for extension in extensions:
        content = extension.get_content()
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        rows = [(int(value), name.strip()) for value, name in _LABEL.findall(text)]
        names = {value: name for value, name in rows if 0 < value <= MAX_VALUE}
        if names:
            return LabelValues.named(names, "label table of the file")
    return None
