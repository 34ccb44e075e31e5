"""Values of one data set, typed, whatever its author put in.

A value that is missing, empty, not of its kind or not finite is None (or empty): the caller
knows which attribute it asked for and what its absence means.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Final

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

#: PS3.5 9.1, but for leading zeros, which older devices write.
_UID: Final = re.compile(r"[0-9][0-9.]{0,63}")
#: A sequence that is nested too deep to be read looks like one without items.
_NO_ITEMS: Final[tuple[Dataset, ...]] = ()


@cache
def tag_of(keyword: str) -> BaseTag:
    """Tag of a keyword of the data dictionary (PS3.6)."""
    return Tag(keyword)


def _one_line(text: str) -> str:
    """``text`` with a question mark for every control character: logs stay in their lines."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class Attributes:
    """Typed access to a data set.

    Parameters
    ----------
    *datasets
        Where to look, first hit first: an item of a per-frame functional group before the
        shared one.
    """

    __slots__ = ("_datasets",)

    def __init__(self, *datasets: Dataset) -> None:
        self._datasets = datasets

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Where values are looked for, in this order."""
        return self._datasets

    def text(self, keyword: str) -> str:
        """One string without padding; several values joined by a backslash."""
        return "\\".join(self.texts(keyword))

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values as strings of one line without padding; empty if there is none."""
        values = [_one_line(str(value).strip(" \0")) for value in self._values(keyword)]
        return tuple(values) if any(values) else ()

    def uid(self, keyword: str) -> str:
        """A unique identifier; empty if there is none, or the value is not made like one."""
        value = self.text(keyword)
        return value if _UID.fullmatch(value) else ""

    def number(self, keyword: str) -> float | None:
        """The one value; None if there is none, or several."""
        values = self.numbers(keyword, 1)
        return values[0] if values else None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Exactly ``count`` finite values, or None."""
        values = self._values(keyword)
        if len(values) != count:
            return None
        try:
            numbers = tuple(float(str(value)) for value in values)
        except (ValueError, OverflowError):
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    def integer(self, keyword: str, vr: str | None = None) -> int | None:
        """The one whole value; None if there is none, several, or it is not of ``vr``."""
        element = self._element(keyword)
        if element is None or (vr is not None and vr != element.VR):
            return None
        number = self.number(keyword)
        return int(number) if number is not None and number.is_integer() else None

    def items(self, keyword: str) -> tuple[Dataset, ...]:
        """Items of a sequence; empty if there is none."""
        element = self._element(keyword)
        if element is None or element.VR != "SQ" or element.value is None:
            return _NO_ITEMS
        return tuple(element.value)

    def item(self, keyword: str) -> Attributes:
        """First item of a sequence; without attributes if there is none."""
        return Attributes(*self.items(keyword)[:1])

    def _values(self, keyword: str) -> tuple[object, ...]:
        element = self._element(keyword)
        if element is None or element.value is None:
            return ()
        value = element.value
        if isinstance(value, MultiValue | list | tuple):
            return tuple(value)
        return () if value == "" else (value,)

    def _element(self, keyword: str) -> DataElement | None:
        tag = tag_of(keyword)
        for dataset in self._datasets:
            try:
                if tag in dataset.keys():  # noqa: SIM118 - without making a tag of a tag
                    return dataset[tag]
            except Exception:  # noqa: S112 - pydicom raises what it likes for a bad value
                continue
        return None
