"""Files of an account are there whole, or as they were."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pacs_bridge.archive.whole_file import whole_file


def write_in_part(path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text("a par")
        raise OSError("full")


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "account.csv"
    path.write_text("before")
    with pytest.raises(OSError, match="full"):
        write_in_part(path)
    assert [each.name for each in tmp_path.iterdir()] == ["account.csv"]
    assert path.read_text() == "before"
    with whole_file(path) as partial:
        partial.write_text("after")
    assert path.read_text() == "after"


def test_a_pipe_is_written_to_as_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with whole_file(pipe) as path:
        path.write_text("rows")
    reader.join()
    assert read == ["rows"]
    assert pipe.is_fifo()
