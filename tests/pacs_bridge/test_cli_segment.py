"""``pacs-bridge segment``: exit status, what is printed, what is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner, Result

from inference.agreement import Overlap
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.nifti import read_label_nifti
from inference.structures import STRUCTURE_BY_NAME
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView
from inference.volume import Volume
from pacs_bridge.cli.main import main
from pacs_bridge.demo_score import decode
from pacs_bridge.report import SeriesReport

TOOLS = Path(sys.executable).parent


@pytest.fixture
def segment(tiny_models: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run the command on a path, into ``tmp_path / "out"``, with the tiny model."""

    def run(source: Path, *options: str) -> Result:
        arguments = ["segment", str(source), "--out", str(tmp_path / "out"), *options]
        model = [] if "--model" in options else ["--model", "tiny"]
        result = CliRunner().invoke(main, [*arguments, "--models", str(tiny_models), *model])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def _ending(result: Result) -> tuple[str, str]:
    ending = json.loads(result.stdout)["ending"]
    return ending["outcome"], ending["reason"]


def test_a_synthetic_series_gives_both_kinds_with_equal_labels(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
) -> None:
    result = segment(make_series(bright_volume)[0].parent)
    assert result.exit_code == 0, result.output
    report = SeriesReport.read(tmp_path / "out" / "report.json")
    labels = [
        decode(tmp_path / "out" / output.file, bright_volume.geometry).labels
        for output in report.stacks[0].outputs
    ]
    assert len(labels) == 2
    np.testing.assert_array_equal(*labels)
    ids = {structure.id for structure in report.stacks[0].structures}
    assert set(np.unique(labels[0])) - {0} == ids
    assert "seg-binary.dcm" in result.stdout
    assert "for demonstration" in result.stderr
    assert "segment 100%" in result.stderr


def _upper_abdomen() -> tuple[Volume, LabelMap]:
    """A synthetic patient from the kidneys to the dome of the liver, 42 planes, and the truth."""
    patient = SyntheticPatient.from_seed(9)
    whole = default_geometry(patient, (5.0, 3.0, 3.0), FieldOfView.ABDOMEN)
    start = 4 * whole.row_step_mm + 13 * whole.column_step_mm
    origins = whole.origins_mm[55:97] + start
    geometry = Geometry((42, 96, 111), origins, whole.row_step_mm, whole.column_step_mm)
    return patient.sample(geometry)


def test_the_structures_that_are_named_come_out_in_place_and_no_other(
    make_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    volume, truth = _upper_abdomen()
    folder, out = make_series(volume)[0].parent, tmp_path / "out"
    command = [TOOLS / "pacs-bridge", "segment", folder, "--out", out, "--models", tmp_path]
    options = ["--model", "synthetic-3mm", "--structures", "liver,kidney_left"]

    said = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)

    assert said.returncode == 0, said.stderr
    report = SeriesReport.read(out / "report.json")
    assert report.model is not None
    assert report.model.parameters["structures"] == "kidney_left liver"
    (stack,) = report.stacks
    wanted = {STRUCTURE_BY_NAME[name].id for name in ("liver", "kidney_left")}
    assert {each.id for each in stack.structures} == wanted
    for output in stack.outputs:
        segments = pydicom.dcmread(out / output.file).SegmentSequence
        assert {segment.SegmentLabel for segment in segments} == {"liver", "kidney_left"}
        found = decode(out / output.file, volume.geometry)
        assert set(found.present()) == wanted
        overlap = Overlap.between(truth, found)
        assert min(overlap.dice(each) for each in wanted) > 0.85
        sides = (STRUCTURE_BY_NAME[f"kidney_{side}"].id for side in ("right", "left"))
        assert overlap.counts[tuple(sides)] == 0
    assert len(stack.outputs) == 2


@pytest.mark.parametrize(
    ("names", "said"), [("liver,heart_valve", "no such structure: 'heart_valve'"), (",", "none")]
)
def test_structures_that_do_not_exist_are_a_wrong_call(
    segment: Callable[..., Result], tmp_path: Path, names: str, said: str
) -> None:
    (tmp_path / "in").mkdir()
    result = segment(tmp_path / "in", "--structures", names)
    assert result.exit_code == 2
    assert f"--structures: {said}" in result.stderr


def test_smooth_borders_are_another_result_and_the_report_says_so(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
) -> None:
    folder = make_series(bright_volume)[0].parent
    labels, parameters, uids = [], [], []
    for options in ([], ["--smooth-borders"]):
        result = segment(folder, "--kind", "labelmap", "--quiet", *options)
        assert result.exit_code == 0, result.output
        written = tmp_path / "out" / "seg-labelmap.dcm"
        labels.append(decode(written, bright_volume.geometry).labels)
        uids.append(pydicom.dcmread(written).SOPInstanceUID)
        parameters.append(SeriesReport.read(tmp_path / "out" / "report.json").model.parameters)
    assert parameters[1] == {**parameters[0], "borders": "smooth"}
    assert 0.001 < (labels[0] != labels[1]).mean() < 0.5
    assert uids[0] != uids[1]


def test_the_published_chain_has_no_smooth_borders(
    segment: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    result = segment(tmp_path / "in", "--parity", "--smooth-borders")
    assert result.exit_code == 2
    assert "--smooth-borders" in result.stderr


def test_the_published_chain_is_in_single_precision(
    segment: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    result = segment(tmp_path / "in", "--parity", "--precision", "bf16")
    assert result.exit_code == 2
    assert "--precision" in result.stderr


@pytest.mark.shared
def test_a_real_series_gives_valid_objects_whose_frames_name_their_slices(
    segment: Callable[..., Result], shared_data: Path, tmp_path: Path
) -> None:
    result = segment(shared_data / "ts_dicom", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    position = {
        str(ds.SOPInstanceUID): ds.ImagePositionPatient
        for ds in map(pydicom.dcmread, sorted((shared_data / "ts_dicom").iterdir()))
    }
    (stack,) = json.loads(result.stdout)["stacks"]
    assert {used["sop_instance_uid"] for used in stack["used"]} == position.keys()
    for output in stack["outputs"]:
        path = tmp_path / "out" / output["file"]
        said = subprocess.run([TOOLS / "dciodvfy", path], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert "Error" not in said.stderr
        frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
        assert len(frames) == output["frame_count"]
        for frame in frames:
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            own = frame.PlanePositionSequence[0].ImagePositionPatient
            assert own == position[source.ReferencedSOPInstanceUID]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "seg-labelmap.dcm",
        "seg-binary.dcm",
        "report.json",
    }


@pytest.mark.parametrize("name", ["case.nii.gz", "CASE.NII", "CASE.NII.GZ"])
def test_a_nifti_gives_its_labels_as_nifti_on_its_own_grid(
    segment: Callable[..., Result], tmp_path: Path, rng: np.random.Generator, name: str
) -> None:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    image = nib.Nifti1Image(rng.integers(-1000, 1000, (20, 24, 16)).astype(np.int16), affine)
    plain = name.lower()
    nib.save(image, tmp_path / f"written-{plain}")
    (tmp_path / f"written-{plain}").rename(tmp_path / name)
    result = segment(tmp_path / name)
    assert result.exit_code == 0, result.output
    labels = nib.load(tmp_path / "out" / "labels.nii.gz")
    assert labels.shape == image.shape
    np.testing.assert_allclose(labels.affine, affine)
    assert read_label_nifti(tmp_path / "out" / "labels.nii.gz").present()


def test_a_nifti_without_orientation_is_refused(
    segment: Callable[..., Result], tmp_path: Path
) -> None:
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.int16), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "case.nii")
    result = segment(tmp_path / "case.nii", "--json")
    assert result.exit_code == 1
    assert _ending(result) == ("refuse", "no-orientation")


def test_a_folder_without_dicom_is_refused_and_its_files_are_listed(
    segment: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no DICOM here")
    result = segment(tmp_path / "in")
    assert result.exit_code == 1
    assert "refuse: no-dicom" in result.stdout
    assert "left out: file 1: no-dicom: not DICOM" in result.stdout
    assert "no-dicom: No DICOM instance was found in the input. Advice: " in result.stderr


def test_an_empty_folder_is_refused(segment: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = segment(tmp_path / "in", "--json")
    assert result.exit_code == 1
    assert _ending(result) == ("refuse", "no-dicom")


def test_two_series_in_one_folder_are_refused_and_both_are_named(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
) -> None:
    uids = set()
    for series in (1, 2):
        for path in make_series(bright_volume, series=series):
            uids.add(str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID))
    result = segment(tmp_path)
    assert result.exit_code == 1
    assert "refuse: mixed-series" in result.stdout
    assert all(uid in result.stdout for uid in uids)


def test_an_unreadable_instance_among_a_series_refuses_it_by_name(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    folder = make_series(bright_volume)[0].parent
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    number = sorted(folder.iterdir()).index(folder / "broken.dcm") + 1
    result = segment(folder, "--json", "--quiet")
    assert result.exit_code == 1
    assert _ending(result) == ("refuse", "unreadable-file")
    assert json.loads(result.stdout)["ending"]["detail"].startswith(f"file {number}: ")
    assert "broken.dcm" not in result.output
    named = segment(folder, "--json", "--quiet", "--file-names")
    assert f"file {number} is broken.dcm" in named.stderr
    assert json.loads(named.stdout)["ending"] == json.loads(result.stdout)["ending"]


def test_an_mr_is_skipped_as_not_ct_and_its_instances_are_listed(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    folder = make_series(bright_volume, overrides={"Modality": "MR"})[0].parent
    result = segment(folder, "--json")
    assert result.exit_code == 1
    assert _ending(result) == ("skip", "not-ct")
    assert len(json.loads(result.stdout)["left_out"]) == 12


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "ending"),
    [
        ("ts_dicom_raw_empty_uids", ("quarantine", "missing-identity")),
        ("dcm_qa_ct_Philips_localizer", ("skip", "localizer")),
        ("dcm_qa_ct_Philips_secondary", ("skip", "derived")),
        ("dcmqi/ct-3slice", ("skip", "too-few-slices")),
    ],
)
def test_real_series_that_give_no_result_say_why(
    segment: Callable[..., Result], shared_data: Path, folder: str, ending: tuple[str, str]
) -> None:
    result = segment(shared_data / folder, "--json")
    assert result.exit_code == 1
    assert _ending(result) == ending
    assert json.loads(result.stdout)["left_out"]


CANARY = "CANARY^JANE"


def _everything(result: Result, out: Path) -> str:
    """All that a call said, and all that it wrote as text."""
    written = [path.read_text() for path in out.rglob("*.json")]
    names = [path.name for path in out.rglob("*")]
    return "\n".join([result.stdout, result.stderr, *written, *names])


@pytest.mark.parametrize(
    ("spoil", "options"),
    [
        ("other", []),
        ("twice", ["--json"]),
        ("text", []),
        ("cut", []),
        ("pixels", []),
        ("pixels", ["--json"]),
        ("identity", []),
    ],
)
def test_names_of_files_and_folders_are_not_told(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
    spoil: str,
    options: list[str],
) -> None:
    folder = make_series(bright_volume)[0].parent
    inside = tmp_path / CANARY / CANARY
    inside.parent.mkdir()
    folder.rename(inside)
    for path in sorted(inside.iterdir()):
        path.rename(inside / f"{CANARY}-{path.name}")
    paths = sorted(inside.iterdir())
    match spoil:
        case "text":
            (inside / f"{CANARY}.dcm").write_text(CANARY)
        case "cut":
            paths[3].write_bytes(paths[3].read_bytes()[:600])
        case "pixels":
            paths[3].write_bytes(paths[3].read_bytes()[:-100])
        case "identity":
            ds = pydicom.dcmread(paths[3])
            ds.SOPInstanceUID = ""
            ds.save_as(paths[3])
        case "twice":
            shutil.copy(paths[3], inside / f"{CANARY}-again")
        case "other":
            (inside / "notes").write_text(CANARY)
    result = segment(tmp_path / CANARY, *options)
    assert result.exit_code == (0 if spoil in ("twice", "other") else 1), result.output
    assert CANARY not in _everything(result, tmp_path / "out")


@pytest.mark.parametrize("spoil", ["", "orientation", "cut", "text"])
def test_the_name_of_a_nifti_is_not_told(
    segment: Callable[..., Result], tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / CANARY / f"{CANARY}.nii.gz"
    path.parent.mkdir()
    image = nib.Nifti1Image(np.zeros((12, 14, 16), np.int16), np.diag([-2.0, -2.0, 3.0, 1.0]))
    if spoil == "orientation":
        image.header["sform_code"] = image.header["qform_code"] = 0
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
    nib.save(image, path)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif spoil == "text":
        path.write_text("no NIfTI")
    result = segment(path)
    assert result.exit_code == (1 if spoil else 0), result.output
    assert CANARY not in _everything(result, tmp_path / "out")


def test_an_unknown_model_is_a_wrong_call_and_those_that_there_are_are_listed(
    segment: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    result = segment(tmp_path / "in", "--model", "no-such-model")
    assert result.exit_code == 2
    assert "--model no-such-model: unknown-model; models here: " in result.stderr
    assert "tiny" in result.stderr


def test_results_of_an_earlier_call_inside_the_input_are_not_input(
    segment: Callable[..., Result],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
) -> None:
    make_series(bright_volume)
    (other,) = make_series(bright_volume, series=2)[:1]
    (tmp_path / "out").mkdir()
    other.rename(tmp_path / "out" / "seg-binary.dcm")
    shutil.rmtree(other.parent)
    result = segment(tmp_path, "--json", "--kind", "labelmap")
    assert result.exit_code == 0, result.output
    # and JSON is the report and nothing else, and only the kind that was asked for is made
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())
    (output,) = json.loads(result.stdout)["stacks"][0]["outputs"]
    assert output["file"] == "seg-labelmap.dcm"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cuda:7"], "no device 'cuda:7'"),
        (["--device", "toaster"], "no device 'toaster'"),
        (["--kind", "triangle"], "'triangle' is not one of"),
    ],
)
def test_a_wrong_call_ends_with_status_2(
    segment: Callable[..., Result], tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "in").mkdir()
    result = segment(tmp_path / "in", *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_input_folder_cannot_take_the_results(tiny_models: Path, tmp_path: Path) -> None:
    command = ["segment", str(tmp_path), "--out", str(tmp_path), "--models", str(tiny_models)]
    result = CliRunner().invoke(main, [*command, "--model", "tiny"])
    assert result.exit_code == 2
    assert "--out" in result.stderr


@pytest.mark.parametrize("words", [("--kind", "binary"), ("--min-slices", "5")])
def test_what_a_nifti_has_no_use_for_is_a_wrong_call(
    segment: Callable[..., Result], tmp_path: Path, words: tuple[str, str]
) -> None:
    (tmp_path / "case.nii").write_bytes(b"")
    result = segment(tmp_path / "case.nii", *words)
    assert (result.exit_code, words[0] in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
