"""Evaluations of folders: what is counted, what is shared, what is taken up again."""

from __future__ import annotations

import csv
import html.parser
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from nibabel.nifti1 import Nifti1Extension

from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.model_store import ModelStore
from inference.nifti import write_label_nifti
from inference.reasons import Reason
from inference.segmenter import Progress
from inference.volume import Volume
from training.__main__ import main
from training.evaluation.run import PAGE_NAME, EvaluationOptions, evaluate_cases
from training.evaluation.sources import StoredLabels
from training.evaluation.tolerances import Tolerances

TABLES = ("cases.csv", "failures.csv", "structures.csv", "structures_by_case.csv")


class ThresholdSegmenter:
    """Calls liver what its scan calls 5: a segmenter whose result is known."""

    identity: SegmenterIdentity = SegmenterIdentity(
        "threshold", "1", "ab" * 32, True, "test", (), "here"
    )

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        return LabelMap(np.where(volume.hu == 5, 5, 0).astype(np.uint8), volume.geometry)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stored(dataset) -> StoredLabels:
    return StoredLabels(dataset.root / "predictions")


def test_overlap_is_averaged_and_presence_counted_apart(dataset, tmp_path):
    outcome = evaluate_cases(stored(dataset), dataset.test_pairs(), tmp_path / "out")

    assert [case.name for case in outcome.cases] == ["first", "second"]
    table = {row["structure"]: row for row in read(tmp_path / "out/structures.csv")}
    assert list(table) == ["all", "spleen", "liver", "aorta"]
    liver, spleen, aorta, every = (table[n] for n in ("liver", "spleen", "aorta", "all"))
    assert float(liver["dice_mean"]) == pytest.approx(5 / 6, abs=1e-5)
    assert (liver["both"], liver["reference_only"]) == ("2", "0")
    assert (spleen["both"], spleen["reference_only"]) == ("1", "1")
    assert (float(spleen["dice_mean"]), float(spleen["dice_missing_as_zero"])) == (1, 0.5)
    assert (aorta["both"], aorta["other_only"], aorta["dice_mean"]) == ("0", "2", "")
    assert every["neither"] == str(2 * 104 - 6)
    assert float(every["dice_missing_as_zero_large"]) == pytest.approx(5 / 6, abs=1e-5)
    assert float(liver["hd95_mm_median"]) == pytest.approx(5.0)


def _say(path: Path, names: dict[int, str]) -> None:
    """Write a label table into the header of a file."""
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    table = "".join(f'<Label Key="{value}">{name}</Label>' for value, name in names.items())
    image.header.extensions.append(Nifti1Extension(0, table.encode()))
    nib.save(image, path)


@pytest.mark.parametrize("folder", ["predictions", "labelsTs"])
def test_labels_whose_own_table_is_not_that_of_v1_are_refused(dataset, tmp_path, folder):
    _say(dataset.root / folder / "first.nii.gz", {1: "spleen", 5: "stomach", 7: "aorta"})
    _say(dataset.root / folder / "second.nii.gz", {1: "spleen", 5: "liver", 7: "aorta"})

    outcome = evaluate_cases(stored(dataset), dataset.test_pairs(), tmp_path / "out")

    assert [case.name for case in outcome.cases] == ["second"]
    (refused,) = outcome.failures
    assert refused.reason is Reason.UNKNOWN_LABEL
    assert "5 is stomach" in refused.detail


def test_a_segmenter_is_run_on_each_scan_and_named(dataset, tmp_path):
    outcome = evaluate_cases(ThresholdSegmenter(), dataset.test_pairs(), tmp_path / "out")

    dice = {s.structure_id: s.dice for case in outcome.cases for s in case.structures}
    assert dice == {5: 1.0, 1: None}
    assert ("weights, SHA-256", "ab" * 32) in outcome.facts
    assert "ab" * 32 in (tmp_path / "out" / PAGE_NAME).read_text()


def test_two_processes_at_once_give_the_report_of_one(dataset, tmp_path):
    call = [sys.executable, "-m", "training", "evaluate", "--dataset-dir", str(dataset.root)]
    call += ["--predictions", str(dataset.root / "predictions"), "--out", str(tmp_path / "two")]
    processes = [
        subprocess.Popen([*call, "--rank", str(rank), "--world-size", "2"], stdout=subprocess.PIPE)
        for rank in range(2)
    ]

    evaluate_cases(stored(dataset), dataset.test_pairs(), tmp_path / "one")

    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert any(b"2 cases" in line for line in said)
    for name in (*TABLES, PAGE_NAME):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_failure_of_an_earlier_run_is_not_taken_by_another_process(dataset, tmp_path):
    pairs, out = dataset.test_pairs(), tmp_path / "out"
    late = ThresholdSegmenter()
    scan = pairs[0].image.read_bytes()
    pairs[0].image.write_bytes(b"x" * len(scan))
    stamp = pairs[0].image.stat()
    evaluate_cases(late, pairs, out)
    pairs[0].image.write_bytes(scan)
    os.utime(pairs[0].image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a disk come back
    other: list[object] = []

    class Slow(ThresholdSegmenter):
        def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
            if not other:
                other.append(None)
                other[0] = evaluate_cases(late, pairs, out, rank=1, world_size=2)
            return super().segment(volume, progress)

    report = evaluate_cases(Slow(), pairs, out, rank=0, world_size=2)

    assert other == [None]
    assert report is not None
    assert report.failures == ()


def test_a_share_of_the_cases_makes_no_report(dataset, tmp_path):
    pairs = dataset.test_pairs()

    assert evaluate_cases(stored(dataset), pairs, tmp_path, rank=1, world_size=2) is None

    assert not (tmp_path / PAGE_NAME).exists()
    assert [path.stem for path in (tmp_path / "cases").iterdir()] == ["second"]


def test_cases_are_taken_up_unless_what_they_were_made_from_changed(dataset, tmp_path):
    pairs, source, lines = dataset.test_pairs(), stored(dataset), []
    options = EvaluationOptions(log=lines.append)
    evaluate_cases(source, pairs, tmp_path / "out", options=options)
    write_label_nifti(
        LabelMap(
            np.full((6, 14, 16), 5, dtype=np.uint8),
            Geometry.from_affine(
                [[0, 0, 5, -40], [0, 5, 0, -40], [5, 0, 0, 0], [0, 0, 0, 1]], (6, 14, 16)
            ),
        ),
        dataset.root / "predictions/second.nii.gz",
    )
    lines.clear()

    evaluate_cases(source, pairs, tmp_path / "out", options=options)

    assert lines[0] == "first: measured before"
    assert lines[1].startswith("second: mean Dice")
    lines.clear()
    evaluate_cases(
        source, pairs, tmp_path / "out", options=EvaluationOptions(Tolerances(1.0), lines.append)
    )
    assert not any("before" in line for line in lines)


def test_a_bad_case_is_named_with_its_reason_and_stops_nothing(dataset, tmp_path):
    moved = Geometry.from_affine(
        [[0, 0, 5, -41], [0, 5, 0, -40], [5, 0, 0, 0], [0, 0, 0, 1]], (6, 14, 16)
    )
    labels = LabelMap(np.full(moved.shape, 5, dtype=np.uint8), moved)
    write_label_nifti(labels, dataset.root / "predictions/first.nii.gz")

    outcome = evaluate_cases(stored(dataset), dataset.test_pairs(), tmp_path / "out")

    assert [(f.name, f.reason) for f in outcome.failures] == [("first", Reason.OTHER_GRID)]
    assert [case.name for case in outcome.cases] == ["second"]
    assert read(tmp_path / "out/failures.csv")[0]["reason"] == "other-grid"
    (dataset.root / "predictions/first.nii.gz").unlink()
    (dataset.root / "labelsTs/second.nii.gz").unlink()
    outcome = evaluate_cases(stored(dataset), dataset.test_pairs(), tmp_path / "out")
    assert {f.reason for f in outcome.failures} == {Reason.MISSING_LABELS}
    assert len(outcome.failures) == 2


class _Links(html.parser.HTMLParser):
    """Counts elements, and collects what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data")]


def test_the_page_loads_nothing_and_escapes_what_it_shows(dataset, tmp_path):
    for folder in ("imagesTs", "labelsTs", "predictions"):
        source = dataset.root / folder / "first.nii.gz"
        source.rename(source.with_name("<b>first&.nii.gz"))

    evaluate_cases(stored(dataset), dataset.test_pairs(), tmp_path / "out")

    text = (tmp_path / "out" / PAGE_NAME).read_text()
    page = _Links()
    page.feed(text)
    assert page.loads == []
    assert "url(" not in text
    assert "@import" not in text
    assert "b" in page.tags  # of the tiles
    assert "<b>first" not in text
    assert "&lt;b&gt;first&amp;" in text
    assert page.tags["circle"] == 4 * 3  # panels x (two livers, one spleen)


def test_the_command_judges_predictions_and_says_the_figures(dataset, tmp_path):
    call = ["evaluate", "--dataset-dir", str(dataset.root), "--out", str(tmp_path / "out")]

    done = CliRunner().invoke(main, [*call, "--predictions", str(dataset.root / "predictions")])

    assert done.exit_code == 0, done.output
    assert "2 cases, 3 structures on both sides" in done.stdout
    assert CliRunner().invoke(main, call).exit_code == 2


def test_the_command_runs_a_model_of_a_store_as_the_clinic_does(dataset, tmp_path):
    store = files("inference") / "models"
    (dataset.root / "imagesTs/second.nii.gz").unlink()
    (dataset.root / "labelsTs/second.nii.gz").unlink()
    call = ["evaluate", "--dataset-dir", str(dataset.root), "--out", str(tmp_path / "out")]

    done = CliRunner().invoke(main, [*call, "--store", str(store), "--model", "synthetic-3mm"])
    unknown = CliRunner().invoke(main, [*call, "--store", str(store), "--model", "none"])

    assert done.exit_code == 0, done.output
    assert "1 cases" in done.stdout
    manifest = ModelStore(Path(str(store))).manifest("synthetic-3mm")
    assert manifest.weights_sha256 in (tmp_path / "out" / PAGE_NAME).read_text()
    assert unknown.exit_code == 1
    assert "unknown-model" in unknown.stderr


def test_the_command_exits_with_one_if_a_case_has_no_figures(dataset, tmp_path):
    (dataset.root / "predictions/first.nii.gz").write_bytes(b"nothing of the kind")

    done = CliRunner().invoke(
        main,
        ["evaluate", "--dataset-dir", str(dataset.root), "--out", str(tmp_path / "out"),
         "--predictions", str(dataset.root / "predictions")],
    )  # fmt: skip

    assert done.exit_code == 1
    assert "first: unreadable-file" in done.stderr
