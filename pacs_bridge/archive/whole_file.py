"""Files that are there whole, or as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.durable import durable_file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; see ``durable_file``.

    A pipe or a device is written to as it is.

    Raises
    ------
    OSError
        If it cannot be put in its place.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    with durable_file(path) as draft:
        yield draft
