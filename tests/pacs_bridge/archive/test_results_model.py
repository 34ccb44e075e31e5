"""A folder of results is of one model, and of nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pacs_bridge.archive.results_folder import RECORD_NAME, RECORD_SCHEMA
from pacs_bridge.archive.results_model import ForeignResultsError, held_for, is_marked


def put_result(out: Path, model: str, schema: str = RECORD_SCHEMA) -> None:
    folder = out / "3f" / "3fa9"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_NAME).write_text(json.dumps({"schema": schema, "made": {"model": model}}))


def hold(out: Path, model: str) -> None:
    with held_for(out, model):
        pass


def test_a_model_that_made_nothing_leaves_the_folder_to_another(tmp_path):
    out = tmp_path / "out"
    hold(out, "tried")
    hold(out, "first")
    put_result(out, "first")
    hold(out, "first")
    with pytest.raises(ForeignResultsError, match="first"):
        hold(out, "second")


@pytest.mark.parametrize("mark", [None, "", "[]", '{"other": 1}'])
def test_results_of_another_model_are_seen_without_their_mark(tmp_path, mark):
    put_result(tmp_path, "first")
    if mark is not None:
        (tmp_path / ".model.json").write_text(mark)
    with pytest.raises(ForeignResultsError, match="first"):
        hold(tmp_path, "second")
    assert not is_marked(tmp_path) or (tmp_path / ".model.json").read_text() == mark
    hold(tmp_path, "first")
    (tmp_path / "3f" / "3fa9" / RECORD_NAME).unlink()
    hold(tmp_path, "first")  # its mark is there again


@pytest.mark.parametrize("name", ["notes.txt", "3f/3fa9/report.json", "3f/notes", "seg-binary.dcm"])
def test_a_folder_with_other_files_is_not_taken(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ForeignResultsError, match="no results"):
        hold(tmp_path, "first")
    assert not is_marked(tmp_path)


def test_results_of_another_software_are_not_ours(tmp_path):
    put_result(tmp_path, "first", schema="another/1")
    with pytest.raises(ForeignResultsError, match="no results"):
        hold(tmp_path, "first")


def test_what_a_disk_puts_into_its_root_is_nobodys_result(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".snapshot").mkdir()
    hold(tmp_path, "first")
    assert is_marked(tmp_path)


def test_runs_of_one_model_share_a_folder_and_another_model_waits_for_its_turn(tmp_path):
    code = (
        "import sys, pathlib; from pacs_bridge.archive.results_model import held_for\n"
        "with held_for(pathlib.Path('out'), 'first'): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    try:
        hold(tmp_path / "out", "first")
        with pytest.raises(ForeignResultsError, match="first"):
            hold(tmp_path / "out", "second")
    finally:
        holder.communicate()
    hold(tmp_path / "out", "second")
