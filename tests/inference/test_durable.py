"""Files that are there whole, or as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.durable import DRAFTS, draft_of, durable_file


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"before")
    with durable_file(path) as draft:
        draft.write_bytes(b"af")
        assert path.read_bytes() == b"before"
        draft.write_bytes(b"after")
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def write_in_part(path: Path, error: BaseException) -> None:
    with durable_file(path) as draft:
        draft.write_bytes(b"a part")
        raise error


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there_and_no_draft(tmp_path, error):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"before")
    with pytest.raises(type(error)):
        write_in_part(path, error)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_and_name_are_brought_to_the_disk_in_that_order(tmp_path, monkeypatch):
    path = tmp_path / "weights.bin"
    seen = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with durable_file(path) as draft:
        draft.write_bytes(b"after")
    assert seen == [(str(draft_of(path)), False), (str(tmp_path), True)]


def test_what_a_killed_process_leaves_is_a_draft(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from inference.durable import durable_file\n"
        "with durable_file(pathlib.Path(sys.argv[1])) as draft:\n"
        "    draft.write_bytes(b'a part')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "weights.bin"], check=False)
    assert (
        list(tmp_path.glob(DRAFTS)) == list(tmp_path.iterdir()) == [tmp_path / ".weights.bin.draft"]
    )
