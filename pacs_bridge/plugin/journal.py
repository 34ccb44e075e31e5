"""A file of JSON lines, each whole or not there, and known by its check when it is damaged."""

from __future__ import annotations

import json
import os
from binascii import crc32
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_CHECK = "check"


class Journal:
    """Lines of a file that only grows, until many are put in the place of more.

    Parameters
    ----------
    path
        The file; it is made at the first ``replace``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[dict[str, Any] | None, ...]:
        """The lines, None for each that is damaged; of a last one that was cut off, nothing.

        Raises
        ------
        OSError
            If the file is there and cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        return tuple(_line(text) for text in data.split(b"\n")[:-1])

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line; when this returns it is on the disk.

        Raises
        ------
        OSError
            If it cannot be written; then nothing of it is there.
        """
        with self._path.open("a+b", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            is_torn = start > 0 and os.pread(file.fileno(), 1, start - 1) != b"\n"
            data = _text(line)
            try:
                _write_all(file.fileno(), b"\n" + data if is_torn else data)
            except OSError:
                file.truncate(start)
                raise

    def replace(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Put these lines in the place of all, at once.

        Raises
        ------
        OSError
            If they cannot be written; then the file is as it was.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, b"".join(map(_text, lines)))
        finally:
            os.close(descriptor)
        partial.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _text(line: Mapping[str, Any]) -> bytes:
    return json.dumps({**line, _CHECK: _check(line)}).encode() + b"\n"


def _line(text: bytes) -> dict[str, Any] | None:
    """A line, or None; an older version wrote none of the checks."""
    try:
        line = json.loads(text)
        if not isinstance(line, dict):
            return None
        check = line.pop(_CHECK, None)
        return line if check is None or check == _check(line) else None
    except ValueError:
        return None


def _check(line: Mapping[str, Any]) -> int:
    return crc32(json.dumps(line, sort_keys=True).encode())


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
