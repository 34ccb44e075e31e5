"""Patient, study and their like, copied from the source byte for byte.

Values that nobody has decoded yet are copied as they are stored, under the Specific Character
Set of the source: a name in Japanese, or one that its sender declared wrongly, comes out as it
went in.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from dicom_seg.errors import SegmentationError
from dicom_seg.read.header import decoded, quiet_pydicom
from dicom_seg.source_attributes import CopiedAttribute, copied_attributes, keeps_rules
from inference.reasons import Reason


def copy_source_attributes(source: Dataset, target: Dataset) -> None:
    """Copy what the object shares with its source (PS3.3 C.7.1, C.7.2, C.7.4.1, C.12.1).

    An optional value that breaks the rules of DICOM stays behind.

    Raises
    ------
    SegmentationError
        ``missing-identity``, naming the attribute, if the source does not say who or which
        study it belongs to: nothing is ever invented for it.
    """
    with quiet_pydicom():  # odd values are the source's, and stay
        for attribute in copied_attributes():
            if attribute.is_kept or keeps_rules(source, attribute.tag):
                _copy(source, target, attribute)


def _copy(source: Dataset, target: Dataset, attribute: CopiedAttribute) -> None:
    tag = attribute.tag
    stored = source.get_item(tag)
    if attribute.type == "1" and (stored is None or _is_blank(stored)):
        raise SegmentationError(Reason.MISSING_IDENTITY, f"{attribute.keyword} is empty")
    if attribute.type == "3" and stored is not None and _is_without_items(stored):
        return
    if stored is not None:
        target[tag] = _portable(source, stored)
    elif attribute.type == "2":
        target.add_new(tag, dictionary_VR(tag), None)


def text_of(dataset: Dataset, keyword: str) -> str:
    """The value without padding; empty where there is none."""
    value = decoded(dataset, keyword)
    return "" if value is None else str(value).strip(" \0")


def _is_blank(stored: DataElement | RawDataElement) -> bool:
    value = stored.value
    if isinstance(value, bytes):
        return not value.strip(b" \0")
    return value is None or not str(value).strip(" \0")


def _is_without_items(stored: DataElement | RawDataElement) -> bool:
    """An optional sequence is absent or has items ("One or more Items shall be included")."""
    return dictionary_VR(stored.tag) == "SQ" and not stored.value


def _portable(
    source: Dataset, stored: DataElement | RawDataElement
) -> DataElement | RawDataElement:
    """The element as Explicit VR Little Endian can carry it, its bytes untouched if they can."""
    if not isinstance(stored, RawDataElement):
        return stored
    vr = stored.VR if stored.VR not in (None, "UN") else dictionary_VR(stored.tag)
    sound = stored.is_little_endian and (vr != "SQ" or not stored.is_implicit_VR)
    if stored.value is None or not sound or stored.length == 0xFFFFFFFF:
        element = source[stored.tag]
        if element.VR == "SQ":
            for item in element.value:
                list(item.iterall())  # decodes what the source wrote in its own syntax
        return element
    value = stored.value
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return stored._replace(VR=vr, value=value, length=len(value), is_implicit_VR=False)


def fitted(text: str, character_set: object, max_characters: int) -> str:
    """``text`` as the character set of the source can write it, and no longer than allowed.

    Where it cannot, letters lose their accents or become question marks. Backslashes, which
    separate values, become slashes (PS3.5 6.1.2.3, 6.2).
    """
    text = text.replace("\\", "/")[:max_characters]
    encoding = python_encoding.get(character_set) if isinstance(character_set, str) else None
    if text.isascii():
        return text
    if character_set and encoding:
        with suppress(UnicodeEncodeError):
            text.encode(encoding)
            return text
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return letters.encode("ascii", "replace").decode("ascii")[:max_characters]
