"""The same result in another transfer syntax, for a peer that does not take the stored one.

Every change is without loss, so the SOP Instance UID stays (PS3.4 B.4.1, PS3.5 8.2).
"""

from __future__ import annotations

import zlib
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import dcmwrite, write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import split_dataset

from inference.reasons import Reason
from pacs_bridge.deliver.negotiation import Syntax
from pacs_bridge.errors import PermanentError

_DEFLATE_LEVEL = 6
_PREAMBLE = b"\0" * 128 + b"DICM"


def transcode(source: Path, stored: Syntax, wanted: Syntax, target: Path) -> None:
    """Write ``source``, stored as ``stored``, to ``target`` as ``wanted``.

    Raises
    ------
    PermanentError
        ``seg-encode`` if there is no such conversion.
    """
    if wanted is Syntax.DEFLATED_EXPLICIT_LITTLE and stored is Syntax.EXPLICIT_LITTLE:
        _deflate(source, target)
    elif wanted in (Syntax.EXPLICIT_LITTLE, Syntax.IMPLICIT_LITTLE):
        ds = dcmread(source)
        if stored is Syntax.RLE:
            ds.decompress(generate_instance_uid=False)
        ds.file_meta.TransferSyntaxUID = UID(wanted.value)
        dcmwrite(
            target,
            ds,
            implicit_vr=wanted is Syntax.IMPLICIT_LITTLE,
            little_endian=True,
            enforce_file_format=True,
        )
    else:
        raise PermanentError(Reason.SEG_ENCODE, f"{source.name}: no way from {stored} to {wanted}")


def _deflate(source: Path, target: Path) -> None:
    """Deflate the data set as it is (PS3.5 A.5); a parse would cost more than all else."""
    file_meta = read_file_meta_info(source)
    file_meta.TransferSyntaxUID = UID(Syntax.DEFLATED_EXPLICIT_LITTLE.value)
    head = DicomBytesIO()
    head.write(_PREAMBLE)
    write_file_meta_info(head, file_meta, enforce_standard=True)
    _, offset = split_dataset(source)
    compressor = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    with source.open("rb") as file:
        file.seek(offset)
        deflated = compressor.compress(file.read()) + compressor.flush()
    target.write_bytes(head.getvalue() + deflated + b"\0" * (len(deflated) % 2))
