"""Values of one data set, typed, whatever its author put in.

A value that is missing, empty, not of its kind or not finite is None (or empty): the caller
knows which attribute it asked for and what its absence means.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from typing import Final, NamedTuple

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR

#: PS3.5 9.1, but for leading zeros, which older devices write.
_UID: Final = re.compile(r"[0-9][0-9.]{0,63}")
#: Of these a value depends on its bytes and the character set, and on no other element.
_ALONE: Final = frozenset(
    {
        *(VR.AS, VR.CS, VR.DA, VR.DS, VR.DT, VR.FD, VR.FL, VR.IS, VR.LO, VR.PN, VR.SH, VR.SL),
        *(VR.SS, VR.TM, VR.UI, VR.UL, VR.US),
    }
)
_MOST_KEPT: Final = 4096
_MOST_KEPT_BYTES: Final = 256
#: A sequence that is nested too deep to be read looks like one without items.
_NO_ITEMS: Final[tuple[Dataset, ...]] = ()


@cache
def tag_of(keyword: str) -> BaseTag:
    """Tag of a keyword of the data dictionary (PS3.6)."""
    return Tag(keyword)


class _Stored(NamedTuple):
    """An element as it is stored: what of it decides on its value."""

    tag: BaseTag
    vr: str
    value: bytes
    is_little_endian: bool
    encodings: tuple[str, ...]


class _Decoded(NamedTuple):
    """An element of which no value is a sequence."""

    vr: str
    values: tuple[str, ...]  #: none if it is empty


@lru_cache(maxsize=_MOST_KEPT)
def _decoded(stored: _Stored) -> _Decoded:
    """What pydicom makes of an element; most of a series are the same in all of its instances."""
    tag, vr, value, is_little_endian, encodings = stored
    raw = RawDataElement(tag, vr, len(value), value, 0, False, is_little_endian)
    return _of(convert_raw_data_element(raw, encoding=list(encodings)))


def _of(element: DataElement) -> _Decoded:
    value = element.value
    if isinstance(value, MultiValue | list | tuple):
        return _Decoded(element.VR, tuple(str(each) for each in value))
    return _Decoded(element.VR, () if value is None or value == "" else (str(value),))


def _stored(dataset: Dataset, tag: BaseTag) -> _Stored | None:
    """An element that need not be decoded again where it was before; None for any other."""
    raw = dataset.get_item(tag, keep_deferred=True)
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        return None
    vr = _vr_of(tag) if raw.VR is None else raw.VR
    known = dataset.original_character_set
    if vr not in _ALONE or not known or not 0 < raw.length == len(raw.value) <= _MOST_KEPT_BYTES:
        return None
    encodings = (known,) if isinstance(known, str) else tuple(known)
    return _Stored(tag, vr, raw.value, raw.is_little_endian, encodings)


@cache
def _vr_of(tag: BaseTag) -> str:
    """Of an element in implicit VR; empty if it is not in the data dictionary."""
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


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
        values = [_one_line(value.strip(" \0")) for value in self._values(keyword)]
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
            numbers = tuple(float(value) for value in values)
        except (ValueError, OverflowError):
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    def integer(self, keyword: str, vr: str | None = None) -> int | None:
        """The one whole value; None if there is none, several, or it is not of ``vr``."""
        known = self._known(keyword)
        if known is None or (vr is not None and vr != known.vr):
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

    def _values(self, keyword: str) -> tuple[str, ...]:
        known = self._known(keyword)
        return () if known is None else known.values

    def _known(self, keyword: str) -> _Decoded | None:
        """The attribute in the first data set that has it, and in which it can be read."""
        tag = tag_of(keyword)
        for dataset in self._datasets:
            try:
                if tag in dataset.keys():  # noqa: SIM118 - without making a tag of a tag
                    stored = _stored(dataset, tag)
                    return _of(dataset[tag]) if stored is None else _decoded(stored)
            except Exception:  # noqa: S112 - pydicom raises what it likes for a bad value
                continue
        return None

    def _element(self, keyword: str) -> DataElement | None:
        tag = tag_of(keyword)
        for dataset in self._datasets:
            try:
                if tag in dataset.keys():  # noqa: SIM118 - without making a tag of a tag
                    return dataset[tag]
            except Exception:  # noqa: S112 - pydicom raises what it likes for a bad value
                continue
        return None
