"""A whole dataset: every case counted, nothing done twice, killed and gone on."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.durable import DRAFTS
from inference.reasons import Reason
from training.dataset import DatasetError, DatasetFolder
from training.prepare.ledger import OutcomeLedger
from training.prepare.outcome import Outcome, Rules
from training.prepare.run import Preparation, prepare_dataset


@pytest.fixture
def raw(tmp_path, make_raw_case) -> Path:
    for number in range(1, 6):
        make_raw_case(f"s{number:04d}", seed=number)
    rows = [f"s{number:04d};{'test' if number == 5 else 'train'}" for number in range(1, 6)]
    (tmp_path / "raw" / "meta.csv").write_text("\n".join(["image_id;split", *rows]))
    return tmp_path / "raw"


def _run(raw: Path, workers: int = 1, **rules: bool) -> tuple[Outcome, ...]:
    preparation = Preparation(raw, raw.parent / "out", workers, Rules(**rules))
    return prepare_dataset(preparation, lambda *_told: None)


def _times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("labels*/*")}


def _report(out: Path) -> list[dict[str, str]]:
    with (out / "prepare_report.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _assert_whole(out: Path, raw: Path, name: str, split: str = "Tr") -> None:
    labels = np.asarray(nib.load(out / f"labels{split}" / f"{name}.nii.gz").dataobj)
    np.testing.assert_array_equal(labels, np.load(raw / name / ".truth.npy"))
    assert (out / f"images{split}" / f"{name}.nii.gz").samefile(raw / name / "ct.nii.gz")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_is_a_dataset_with_its_report(raw, tmp_path, workers):
    (raw / "s0003" / "ct.nii.gz").unlink()

    outcomes = _run(raw, workers)

    assert len(outcomes) == 5
    folder = DatasetFolder(tmp_path / "out")
    assert [pair.name for pair in folder.training_pairs()] == ["s0001", "s0002", "s0004"]
    assert [pair.name for pair in folder.test_pairs()] == ["s0005"]
    for name in ("s0001", "s0002", "s0004"):
        _assert_whole(tmp_path / "out", raw, name)
    _assert_whole(tmp_path / "out", raw, "s0005", "Ts")
    lines = _report(tmp_path / "out")
    assert [line["case"] for line in lines] == [f"s{n:04d}" for n in range(1, 6)]
    assert [line["outcome"] for line in lines].count("prepared") == 4
    refused = lines[2]
    assert (refused["outcome"], refused["code"], refused["effect"], refused["file"]) == (
        "refused",
        "missing-image",
        "refuses",
        "ct.nii.gz",
    )


def test_a_second_run_keeps_what_is_whole_and_the_report_tells_all_again(raw, tmp_path):
    (raw / "s0002" / "segmentations" / "liver.nii.gz").unlink()
    _run(raw)
    before, report = _times(tmp_path / "out"), _report(tmp_path / "out")
    (tmp_path / "out" / "prepare_report.csv").unlink()

    _run(raw)

    assert _times(tmp_path / "out") == before
    assert _report(tmp_path / "out") == report


def test_what_changed_or_was_lost_is_made_anew_and_only_that(raw, tmp_path):
    out = tmp_path / "out"
    (raw / "s0002" / "segmentations" / "liver.nii.gz").rename(tmp_path / "liver.nii.gz")
    _run(raw)
    before = _times(out)
    (tmp_path / "liver.nii.gz").rename(raw / "s0002" / "segmentations" / "liver.nii.gz")
    (out / "labelsTr" / "s0003.nii.gz").write_bytes(b"cut off")
    (out / "imagesTr" / "s0004.nii.gz").unlink()

    outcomes = _run(raw)

    assert all(outcome.prepared for outcome in outcomes)
    for name in ("s0002", "s0003", "s0004"):
        _assert_whole(out, raw, name)
    after = _times(out)
    assert {name for name in before if after[name] == before[name]} == {
        "s0001.nii.gz",
        "s0005.nii.gz",
    }


def test_a_case_that_goes_bad_or_changes_sides_leaves_nothing_behind(raw, tmp_path):
    out = tmp_path / "out"
    _run(raw)
    (raw / "s0001" / "ct.nii.gz").write_bytes(b"")
    table = (raw / "meta.csv").read_text().replace("s0002;train", "s0002;test")
    (raw / "meta.csv").write_text(table.replace("s0003;train", "s0003;"))

    _run(raw)

    assert [path.name for path in sorted(out.glob("*Tr/*"))] == ["s0004.nii.gz"] * 2
    _assert_whole(out, raw, "s0002", "Ts")
    assert len(list(out.glob("*Ts/*"))) == 4


@pytest.mark.parametrize("row", ["{0}/kept", "../../kept", "..", "a\0b", "n" * 300])
def test_a_row_that_names_no_folder_removes_nothing_and_is_told(raw, tmp_path, row):
    row = row.format(tmp_path)
    kept = [tmp_path / "kept.json", tmp_path / "kept.nii.gz"]
    for path in kept:
        path.write_text("mine")
    with (raw / "meta.csv").open("a") as file:
        file.write(f"\n{row};train\n")

    outcomes = _run(raw)

    assert all(path.read_text() == "mine" for path in kept)
    (told,) = (outcome for outcome in outcomes if not outcome.prepared)
    assert (told.case, told.remarks[0].reason) == (row, Reason.MISSING_CASE)
    assert "no name of a folder" in told.remarks[0].detail
    with pytest.raises(DatasetError):
        OutcomeLedger(tmp_path / "out", Rules()).forget(row)


def test_another_rule_looks_again(raw, tmp_path):
    masks = raw / "s0001" / "segmentations"
    (masks / "vertebrae_S1.nii.gz").write_bytes((masks / "face.nii.gz").read_bytes())

    assert [outcome.prepared for outcome in _run(raw)].count(False) == 1
    assert all(outcome.prepared for outcome in _run(raw, remap_v2=True))


def test_cases_whose_process_is_ended_from_outside_are_done_all_the_same(raw, tmp_path):
    ended = []

    def end_workers(*_told) -> None:
        if not ended:
            for child in multiprocessing.active_children():
                ended.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)

    outcomes = prepare_dataset(Preparation(raw, tmp_path / "out", 2), end_workers)

    assert ended
    assert sorted(outcome.case for outcome in outcomes) == [f"s{n:04d}" for n in range(1, 6)]
    assert all(outcome.prepared for outcome in outcomes)


def test_killed_in_the_middle_it_goes_on_and_every_label_file_is_whole(tmp_path, make_raw_case):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in range(12):
        make_raw_case(f"s{number:04d}", seed=number)
    command = [sys.executable, "-m", "training", "prepare", str(raw), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(out.glob("labelsTr/s*")) and process.poll() is None:
        time.sleep(0.002)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    for path in out.glob("labelsTr/s*"):
        name = path.name.removesuffix(".nii.gz")
        labels = np.asarray(nib.load(path).dataobj)
        np.testing.assert_array_equal(labels, np.load(raw / name / ".truth.npy"))
    assert workers
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        time.sleep(0.05)  # they end with their parent; the test's own limit is the judge
    before = {path: path.stat().st_mtime_ns for path in (out / ".prepare").glob("*.json")}

    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 of 12 cases ready")
    assert done.stderr.splitlines()[-1].startswith("12/12 ")
    for number in range(12):
        _assert_whole(out, raw, f"s{number:04d}")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(out.glob(f"*/{DRAFTS}"))


def test_the_command_says_what_was_refused_and_exits_with_1(raw, tmp_path):
    from click.testing import CliRunner

    from training.cli.prepare import prepare

    (raw / "s0004" / "segmentations" / "liver.nii.gz").write_bytes(b"")
    arguments = [str(raw), "--out", str(tmp_path / "out"), "--workers", "1", "--copy-images"]

    done = CliRunner().invoke(prepare, arguments)

    assert done.exit_code == 1
    assert "4 of 5 cases ready" in done.stdout
    assert "s0004 refused: empty-file" in done.stderr
    assert {line["image"] for line in _report(tmp_path / "out")} == {"copy", ""}


def test_a_folder_without_cases_is_no_dataset(tmp_path):
    from click.testing import CliRunner

    from training.cli.prepare import prepare

    (tmp_path / "raw").mkdir()

    done = CliRunner().invoke(prepare, [str(tmp_path / "raw"), "--out", str(tmp_path / "out")])

    assert done.exit_code == 1
    assert Reason.NO_CASES in done.stderr
    assert not (tmp_path / "out").exists()
