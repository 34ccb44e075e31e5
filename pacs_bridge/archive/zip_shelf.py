"""Zip files whose directories are known: that of a large one is not read for each of its series."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inference.file_stamp import FileStamp
from pacs_bridge.archive.zip_members import ZipMembers

#: Some 115 MB of directories.
_MOST_MEMBERS: Final = 200_000


class ZipShelf:
    """The zip files that were used last; for any number of threads.

    No file is held open. One that was written anew, or put in the place of another, is read anew.

    Parameters
    ----------
    most_members
        That are remembered, of all zip files together.
    """

    def __init__(self, most_members: int = _MOST_MEMBERS) -> None:
        self._most_members = most_members
        self._lock = threading.Lock()
        self._known: OrderedDict[Path, ZipMembers] = OrderedDict()

    @contextmanager
    def opened(self, path: Path) -> Iterator[ZipMembers]:
        """A zip file, for the body. Raises as ``ZipMembers``."""
        stamp = FileStamp.of(path.stat())
        with self._lock:
            members = self._known.pop(path, None)  # nobody else reads by it meanwhile
        if members is None or members.stamp != stamp:
            members = ZipMembers(path)
        try:
            yield members
        finally:
            members.rest()
            self._keep(path, members)

    def _keep(self, path: Path, members: ZipMembers) -> None:
        with self._lock:
            self._known[path] = members
            while sum(map(len, self._known.values())) > self._most_members:
                self._known.popitem(last=False)
