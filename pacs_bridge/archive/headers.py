"""Headers as a plan keeps them: what triage needs, without the identity of a patient.

Patient ID, name and their like are kept as keyed hashes: whether two instances agree in them
can still be told, and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from dicom_seg.read.examination import LeftOut, SeriesIdentity
from dicom_seg.read.instance import Instance
from dicom_seg.read.planes import Plane
from pacs_bridge.identity_hash import IdentityHash

_NOWHERE = Path()
_LEVEL = 1  # most of what is to be gained


def pack(instances: Sequence[Instance], hide: IdentityHash) -> bytes:
    """Headers of one series as bytes, without paths and without identities."""
    known: dict[str, str] = {}

    def hidden(text: str) -> str:
        if text not in known:
            known[text] = hide.word(text)
        return known[text]

    bare = [
        replace(
            placed(each, _NOWHERE),
            identity=replace(each.identity, patient_id=hidden(each.identity.patient_id)),
            person=tuple(hidden(value) for value in each.person),
        )
        for each in instances
    ]
    return zlib.compress(_adapter().dump_json(bare), _LEVEL)


def unpack(content: bytes, paths: Mapping[int, Path]) -> dict[int, Instance]:
    """Headers that were packed, by their place among them, each at its path.

    Parameters
    ----------
    content
        From ``pack``.
    paths
        By place; an instance whose place has none is left out.
    """
    instances = _adapter().validate_json(zlib.decompress(content))
    return {place: placed(instances[place], path) for place, path in paths.items()}


def placed(instance: Instance, path: Path, is_copy: bool = False) -> Instance:
    """The instance, as if it had been read from ``path``.

    Parameters
    ----------
    instance, path
        Any.
    is_copy
        The file is another one than was read, with the same bytes.
    """

    def plane(each: Plane) -> Plane:
        stamp = None if is_copy else each.row.stamp
        return replace(each, row=replace(each.row, path=path, stamp=stamp))

    def left_out(each: LeftOut) -> LeftOut:
        return replace(each, path=path)

    return replace(
        instance,
        path=path,
        planes=tuple(plane(each) for each in instance.planes),
        left_out=tuple(left_out(each) for each in instance.left_out),
    )


@cache
def _adapter() -> TypeAdapter[list[Instance]]:
    return TypeAdapter(list[Instance])


def series_word(identity: SeriesIdentity, folder_id: int) -> str:
    """What a plan calls a series: its UID, or where there is none the folder that it lies in."""
    return identity.series_instance_uid or f"without-uid-in-{folder_id}"
