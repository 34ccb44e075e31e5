"""``pacs-bridge segment``: one series, from files to files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inference.reasons import Reason
from pacs_bridge.cli.model_options import (
    asked_structures,
    device_option,
    kind_option,
    model_option,
    models_option,
    precision_option,
)
from pacs_bridge.cli.outcome import (
    FAILED,
    advise,
    coded_failures,
    end_wrong_call,
    refuse_given,
)
from pacs_bridge.cli.progress import series_progress

if TYPE_CHECKING:
    from inference.segmenter import Segmenter
    from pacs_bridge.report import SeriesReport, StackReport

_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_LISTED = 20  # instances left out, in text; the report has all of them


@dataclass(frozen=True, slots=True)
class SegmentCall:
    """The options of one call."""

    source: Path
    folder: Path
    model_name: str | None
    models_folder: Path | None
    kinds: tuple[str, ...]
    device: str
    min_slices: int | None
    parity: bool
    precision: str
    whole_volume: bool
    structures: str | None
    smooth_borders: bool
    file_names: bool | None
    as_json: bool
    quiet: bool

    @property
    def names_files(self) -> bool:
        """Whether a person reads what is said, who may know what the files are called."""
        return sys.stderr.isatty() if self.file_names is None else self.file_names


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    "folder",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results and report.json; made if needed.",
)
@model_option
@models_option
@kind_option
@device_option
@click.option("--min-slices", type=click.IntRange(min=1), help="Skip stacks with fewer slices.")
@click.option("--parity", is_flag=True, help="The published chain to the letter.")
@precision_option
@click.option("--whole-volume", is_flag=True, help="Compute the air around the patient too.")
@click.option(
    "--structures",
    metavar="NAMES",
    help="Structures or groups of them, comma between; no other is written, and what is far "
    "from them is not computed unless --whole-volume or --parity is given.",
)
@click.option(
    "--smooth-borders",
    is_flag=True,
    help="Borders between the voxels of the model's grid, not along them.",
)
@click.option(
    "--file-names/--no-file-names",
    default=None,
    help="Tell on standard error the names of files left out; default: on a terminal.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def segment(**options: Any) -> None:
    """Segment one CT series.

    INPUT is a folder of DICOM files in any order (searched with its sub-folders), one DICOM
    file, or a NIfTI file. DICOM gives Segmentations, NIfTI gives its labels as NIfTI.
    Exits with 1 and a reason code where there is no result.

    Names of files may be names of patients. The report and what is printed name instances by
    UID and files by their number among the sorted files of INPUT.
    """
    call = SegmentCall(**options)
    with coded_failures(call.as_json, name_files=call.names_files):
        report = _run(call)
    if call.as_json:
        click.echo(report.to_json().decode().rstrip())
    else:
        _print(report)
    if call.names_files:
        _name_files(report, call)
    if report.ending.reason is not None:
        advise(report.ending.reason)
    if not report.ending.has_result:
        raise click.exceptions.Exit(FAILED)


def _run(call: SegmentCall) -> SeriesReport:
    from dicom_seg.read.series import SeriesRules
    from dicom_seg.segmentation import SegKind
    from pacs_bridge.process import ProcessOptions, SeriesSource, process_series
    from pacs_bridge.process_nifti import process_nifti

    is_nifti = call.source.name.lower().endswith(_NIFTI_SUFFIXES) and call.source.is_file()
    if is_nifti:
        refuse_given(("kinds", "min_slices"), "of DICOM only: NIfTI is one stack, with one result")
    try:
        call.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        end_wrong_call(f"--out: {error.strerror}")
    if call.source.is_dir() and call.folder.resolve() == call.source.resolve():
        end_wrong_call("--out must be another folder than INPUT")
    created = datetime.now(UTC)
    segmenter = _segmenter(call)
    with series_progress(call.quiet) as progress:
        if is_nifti:
            return process_nifti(call.source, segmenter, call.folder, created, progress)
        rules = SeriesRules(min_slices=call.min_slices) if call.min_slices else SeriesRules()
        kinds = tuple(SegKind(kind) for kind in dict.fromkeys(call.kinds)) or tuple(SegKind)
        return process_series(
            SeriesSource(_input_files(call.source, call.folder), created),
            segmenter,
            ProcessOptions(kinds=kinds, rules=rules),
            call.folder,
            progress,
        )


def _segmenter(call: SegmentCall) -> Segmenter:
    from inference.engine.heap import keep_heap
    from inference.windows import Precision
    from pacs_bridge.models import (
        SegmenterChoice,
        UnknownDeviceError,
        damaged_models,
        default_models_folder,
        known_models,
        model_stores,
        open_segmenter,
        preferred_model,
    )

    stores = model_stores(call.models_folder or default_models_folder())
    name = call.model_name or preferred_model(stores)
    wanted = asked_structures(call.structures)
    if call.smooth_borders and call.parity:
        end_wrong_call("--smooth-borders: --parity has its borders where the published chain has")
    if call.precision == Precision.BF16 and call.parity:
        end_wrong_call("--precision bf16: --parity is the published chain, in single precision")
    choice = SegmenterChoice(
        device=call.device,
        parity=call.parity,
        precision=None if call.precision == "auto" else Precision(call.precision),
        whole_volume=call.whole_volume,
        structures=wanted,
        smooth_borders=call.smooth_borders,
    )
    keep_heap()
    known = known_models(stores)
    if name not in known:
        end_wrong_call(f"--model {name}: {Reason.UNKNOWN_MODEL}; models here: {', '.join(known)}")
    try:
        segmenter = open_segmenter(name, stores, choice)
    except UnknownDeviceError as error:
        end_wrong_call(f"--device {call.device}: {error}")
    for name_of, damage in damaged_models(stores) if wanted else ():
        click.echo(f"{name_of} finds no structures: {damage}", err=True)
    if segmenter.identity.demonstration:
        click.echo(f"{name} is for demonstration: {segmenter.identity.intended_use}", err=True)
    return segmenter


def _input_files(source: Path, out: Path) -> tuple[Path, ...]:
    """Every file of the input, sorted; results of an earlier call inside it are not input."""
    if source.is_file():
        return (source,)
    inside = out.resolve()
    files = (path for path in source.rglob("*") if path.is_file())
    nested = inside != source.resolve() and inside.is_relative_to(source.resolve())
    return tuple(
        sorted(path for path in files if not (nested and path.resolve().is_relative_to(inside)))
    )


def _name_files(report: SeriesReport, call: SegmentCall) -> None:
    """What the numbers of the report stand for, on standard error."""
    from dicom_seg.read.examination import file_numbers

    if call.source.is_file():
        return
    mentioned = {each.file for each in report.left_out}
    for path, number in file_numbers(_input_files(call.source, call.folder)).items():
        if f"file {number}" in mentioned:
            click.echo(f"file {number} is {path.relative_to(call.source)}", err=True)


def _print(report: SeriesReport) -> None:
    for number, stack in enumerate(report.stacks):
        _print_stack(number, stack)
    if report.ending.reason is not None:
        click.echo(f"{report.ending.outcome}: {report.ending.reason}: {report.ending.detail}")
    for each in report.left_out[:_LISTED]:
        frame = f" frame {each.frame_number}" if each.frame_number else ""
        click.echo(f"  left out: {each.file}{frame}: {each.reason}: {each.detail}")
    if len(report.left_out) > _LISTED:
        click.echo(f"  and {len(report.left_out) - _LISTED} more left out")
    click.echo("report: report.json")


def _print_stack(number: int, stack: StackReport) -> None:
    z, y, x = stack.shape
    name = f"stack {number}" + (f" ({stack.separated_by})" if stack.separated_by else "")
    spacing = " x ".join(f"{mm:.3g}" for mm in reversed(stack.spacing_mm))
    click.echo(f"{name}: {x} x {y} x {z}, {spacing} mm, {len(stack.structures)} structures")
    for finding in stack.findings:
        click.echo(f"  finding: {finding.reason}: {finding.detail}")
    if stack.reason is not None:
        click.echo(f"  no result: {stack.reason}")
    for output in stack.outputs:
        size_mb = output.size_bytes / 1e6
        click.echo(f"  {output.kind}: {output.file} ({size_mb:.1f} MB)")
