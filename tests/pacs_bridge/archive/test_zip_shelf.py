"""The directory of a zip file is read once, as long as the file is the same."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.archive.zip_members import ZipMembers
from pacs_bridge.archive.zip_shelf import ZipShelf
from pacs_bridge.errors import PermanentError


def zipped(path: Path, *contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for number, content in enumerate(contents):
            target.writestr(f"name {number}", content)
    return path


def taken_out(shelf: ZipShelf, path: Path, number: int, target: Path) -> bytes:
    with shelf.opened(path) as members:
        members.extract(number, target)
    return target.read_bytes()


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """Zip files whose directories were read."""
    paths: list[Path] = []
    begin = ZipMembers.__init__

    def noted(members: ZipMembers, path: Path) -> None:
        paths.append(path)
        begin(members, path)

    monkeypatch.setattr(ZipMembers, "__init__", noted)
    return paths


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_directory_is_read_once_and_no_file_is_held_open(tmp_path, read):
    path, shelf = zipped(tmp_path / "a.zip", b"one", b"two" * 1000), ZipShelf()
    before = open_files()
    for number, content in [(0, b"one"), (1, b"two" * 1000), (0, b"one")]:
        assert taken_out(shelf, path, number, tmp_path / "out") == content
        assert open_files() == before
    assert read == [path]


def test_a_file_that_was_written_anew_is_read_anew(tmp_path, read):
    path, shelf = zipped(tmp_path / "a.zip", b"one"), ZipShelf()
    assert taken_out(shelf, path, 0, tmp_path / "out") == b"one"
    times = path.stat()
    zipped(path, b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert taken_out(shelf, path, 0, tmp_path / "out") == b"two"
    assert read == [path, path]


def test_a_file_that_is_replaced_between_two_members_is_not_read_by_the_old_directory(tmp_path):
    path = zipped(tmp_path / "a.zip", b"one", b"two")
    with ZipMembers(path) as members:
        members.extract(0, tmp_path / "out")
        members.rest()
        zipped(tmp_path / "b.zip", b"someone", b"else").replace(path)
        with pytest.raises(PermanentError) as caught:
            members.extract(1, tmp_path / "out")
    assert caught.value.reason is Reason.SOURCE_MISSING


def test_what_is_remembered_is_bounded_and_the_last_ones_are_kept(tmp_path, read):
    paths = [zipped(tmp_path / f"{name}.zip", b"1", b"2") for name in "abc"]
    shelf = ZipShelf(most_members=4)
    for path in paths:
        taken_out(shelf, path, 0, tmp_path / "out")
    for path in reversed(paths):
        taken_out(shelf, path, 1, tmp_path / "out")
    assert read == [*paths, paths[0]]


def test_one_that_is_gone_or_damaged_is_told_each_time(tmp_path):
    shelf, path = ZipShelf(), tmp_path / "a.zip"
    for _ in range(2):
        with pytest.raises(FileNotFoundError), shelf.opened(path):
            pass
    path.write_bytes(b"PK no zip file")
    for _ in range(2):
        with pytest.raises(PermanentError), shelf.opened(path):
            pass
