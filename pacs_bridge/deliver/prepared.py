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
        ``disk-full`` or ``internal-error`` if the result cannot be read now, or there is no
        place for it in this syntax; also where that shows in the body.
    PermanentError
        ``source-missing`` if it is not on disk as it was made, ``seg-encode`` if it cannot be
        had in this syntax.
    """
    path = data_folder / offer.result.path
    try:
        with _as_it_travels(offer, path, data_folder, destination) as file:
            yield file
    except OSError as error:  # of files: those of connections are translated where they arise
        problem = error.strerror or type(error).__name__
        raise TransientError(disk_reason(error), f"{path.name}: {problem}") from error


@contextmanager
def _as_it_travels(offer: Offer, path: Path, data_folder: Path, destination: str) -> Iterator[Path]:
    stored = Syntax(offer.result.transfer_syntax_uid)
    problem = offer.result.problem(data_folder)
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
