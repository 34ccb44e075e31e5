"""A result on disk, checked and in the transfer syntax that it is to travel in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.deliver.negotiation import Offer, Syntax
from pacs_bridge.deliver.transcoding import transcode
from pacs_bridge.errors import PermanentError, TransientError, disk_reason


@contextmanager
def prepared(offer: Offer, data_folder: Path, destination: str) -> Iterator[Path]:
    """The file to send; one that had to be made for it is deleted in the end.

    Raises
    ------
    TransientError
        ``disk-full`` or ``internal-error`` if the result cannot be read now.
    PermanentError
        ``source-missing`` if it is not on disk as it was made, ``seg-encode`` if it cannot be
        had in this syntax.
    """
    stored = Syntax(offer.result.transfer_syntax_uid)
    path = data_folder / offer.result.path
    try:
        problem = offer.result.problem(data_folder)
    except OSError as error:
        raise TransientError(disk_reason(error), f"{path.name}: {error.strerror}") from error
    if problem:
        raise PermanentError(Reason.SOURCE_MISSING, f"result {path.name} {problem}")
    if offer.syntax is stored:
        yield path
        return
    # one name a destination: what a crash leaves behind, the next attempt overwrites
    transcoded = path.with_suffix(f".{destination}.sending")
    try:
        transcode(path, stored, offer.syntax, transcoded)
        yield transcoded
    finally:
        transcoded.unlink(missing_ok=True)
