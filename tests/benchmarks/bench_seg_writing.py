"""Writing a Segmentation: ours against highdicom and dcmqi, in turns, each in a process of its own.

    python tests/benchmarks/bench_seg_writing.py [--planes 397] [--matrix 512] [--structures 60]
        [--json FILE]

Prints seconds of writing and of reading back to verify, peak memory above what labels and
libraries take (not for dcmqi), frames, size, and ratios of CPU times. The structures are those of
the synthetic patient.

All write the same voxels. Of a BINARY Segmentation, ours and highdicom leave out every frame that
shows nothing of its segment; dcmqi leaves out those before its first and after its last plane and
writes the empty ones between (a structure in several pieces), so it writes more frames than ours.
A row whose sides wrote unlike numbers of frames says so, and how many of them are empty.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import dcmqi_writer
import numpy as np
import pydicom
from pydicom.pixels import iter_pixels
from pydicom.sr.codedict import codes
from row import Row, Unit, add_json_option, write_rows

from dicom_seg.provenance import SourceInstance, derived_uid
from dicom_seg.read.examination import StackPlan
from dicom_seg.read.slice_table import PixelSource, SliceRow, SliceTable
from dicom_seg.segmentation import Encoding, SegKind, SegRequest, write_segmentation
from dicom_seg.verification import verify_segmentation
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.synthetic.patient import SyntheticPatient, default_geometry

SPACING_MM = (1.25, 0.8, 0.8)
CT = "1.2.840.10008.5.1.4.1.1.2"
VARIANTS = {
    "binary": (SegKind.BINARY, Encoding.NATIVE),
    "binary-deflated": (SegKind.BINARY, Encoding.DEFLATED),
    "labelmap-rle": (SegKind.LABELMAP, Encoding.RLE),
    "labelmap-native": (SegKind.LABELMAP, Encoding.NATIVE),
}
RIVALS = {"highdicom-binary": SegKind.BINARY, "highdicom-labelmap-rle": SegKind.LABELMAP}
DCMQI = {"dcmqi-binary": "binary", "dcmqi-labelmap": "labelmap"}
#: Ours, theirs, what both write.
COMPARISONS = (
    ("binary", "highdicom-binary", "BINARY"),
    ("binary", "dcmqi-binary", "BINARY"),
    ("labelmap-rle", "highdicom-labelmap-rle", "LABELMAP RLE"),
    ("labelmap-native", "dcmqi-labelmap", "LABELMAP"),
)


class Times(NamedTuple):
    """Of one run."""

    write_s: float
    write_cpu_s: float  #: what a busy machine does not change much
    verify_cpu_s: float
    peak_kb: int


def memory_kb(field: str) -> int:
    """A line of this process's status: resident now, or at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def make_labels(planes: int, matrix: int, structures: int) -> np.ndarray:
    """The synthetic patient on a coarse grid, enlarged; the commonest structures of it."""
    patient = SyntheticPatient.from_seed(1)
    _, coarse = patient.sample(default_geometry(patient, spacing_mm=(4.0, 3.0, 3.0)))
    counts = coarse.slice_counts().sum(axis=0)
    counts[0] = 0
    keep = np.zeros(256, dtype=np.uint8)
    chosen = np.argsort(counts)[::-1][:structures]
    keep[chosen] = chosen
    enlarge = [
        np.arange(n) * m // n
        for n, m in zip((planes, matrix, matrix), coarse.labels.shape, strict=True)
    ]
    return keep[coarse.labels[np.ix_(*enlarge)]]


def make_plan(shape: tuple[int, int, int]) -> StackPlan:
    header = pydicom.Dataset()
    header.PatientID, header.PatientName = "BENCH", "Bench^Mark"
    header.PatientBirthDate = header.PatientSex = header.AccessionNumber = header.StudyID = ""
    header.StudyDate, header.StudyTime, header.Modality = "20261121", "101500", "CT"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
    header.SliceThickness = SPACING_MM[0]
    rows = tuple(
        SliceRow(
            path=Path(f"{z}.dcm"),
            sop_class_uid=CT,
            sop_instance_uid=derived_uid("bench", str(z)),
            frame_number=None,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            origin_mm=(-200.0, -210.5, 40.0 + z * SPACING_MM[0]),
            row_cosine=(1.0, 0.0, 0.0),
            column_cosine=(0.0, 1.0, 0.0),
            row_spacing_mm=SPACING_MM[1],
            column_spacing_mm=SPACING_MM[2],
            rows=shape[1],
            columns=shape[2],
            rescale_slope=1.0,
            rescale_intercept=0.0,
            padding=None,
            pixels=PixelSource(0, 0, 1, 16, 16, 15, True),
        )
        for z in range(shape[0])
    )
    return StackPlan(SliceTable(rows, "1.2.3.3"), header, "", ())


def write_ours(labels: LabelMap, variant: str, path: Path) -> Times:
    plan = make_plan(labels.geometry.shape)
    kind, encoding = VARIANTS[variant]
    algorithm = SegmenterIdentity("bench", "1", "0" * 64, True, "benchmark", (), "benchmark")
    sources = tuple(SourceInstance(row.sop_instance_uid, "") for row in plan.table.rows)
    request = SegRequest(
        kind, algorithm, datetime(2026, 11, 21), encoding=encoding, sources=sources
    )
    wall, cpu = time.perf_counter(), time.process_time()
    write_segmentation(labels, plan, request, path)
    write_s, write_cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    peak = memory_kb("VmHWM")
    cpu = time.process_time()
    verify_segmentation(path, labels, plan, request)
    return Times(write_s, write_cpu_s, time.process_time() - cpu, peak)


def write_theirs(labels: LabelMap, variant: str, path: Path) -> Times:
    import highdicom
    from highdicom.seg import SegmentDescription

    plan = make_plan(labels.geometry.shape)
    sources = []
    for row in plan.table.rows:
        source = pydicom.Dataset()
        source.update(plan.header)
        source.SOPClassUID, source.SOPInstanceUID = row.sop_class_uid, row.sop_instance_uid
        source.FrameOfReferenceUID = plan.table.frame_of_reference_uid
        source.ImagePositionPatient = list(row.origin_mm)
        source.ImageOrientationPatient = [*row.row_cosine, *row.column_cosine]
        source.PixelSpacing = [row.row_spacing_mm, row.column_spacing_mm]
        source.Rows, source.Columns = row.rows, row.columns
        sources.append(source)
    number = np.zeros(256, dtype=np.uint8)
    present = list(labels.present())
    number[present] = np.arange(1, len(present) + 1)
    pixels = number[labels.labels]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "a", codes.DCM.ArtificialIntelligence, "1"
    )
    segments = [
        SegmentDescription(n, "s", codes.SCT.Tissue, codes.SCT.Liver, "AUTOMATIC", algorithm)
        for n in range(1, len(present) + 1)
    ]
    kind = RIVALS[variant]
    syntax = "1.2.840.10008.1.2.5" if kind is SegKind.LABELMAP else "1.2.840.10008.1.2.1"
    wall, cpu = time.perf_counter(), time.process_time()
    seg = highdicom.seg.Segmentation(
        sources, pixels, kind.name, segments, "1.2.3", 1, "1.2.4", 1, "m", "n", "1", "s",
        transfer_syntax_uid=syntax, omit_empty_frames=kind is SegKind.BINARY,
    )  # fmt: skip
    seg.save_as(path)
    peak = memory_kb("VmHWM")
    return Times(time.perf_counter() - wall, time.process_time() - cpu, 0.0, peak)


def measure_one(variant: str, labels_path: Path) -> None:
    """In a process of its own: one line of JSON."""
    path = labels_path.with_name(f"{variant}.dcm")
    if variant in DCMQI:
        wall_s, cpu_s = dcmqi_writer.write(labels_path.parent, DCMQI[variant], path)
        report(Times(wall_s, cpu_s, 0.0, 0), 0, path)
        return
    array = np.load(labels_path)
    labels = LabelMap(array, make_plan(array.shape).table.geometry())
    np.median(array[0, 0].astype(float))  # reading a series loads it, too
    before = memory_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    write = write_ours if variant in VARIANTS else write_theirs
    report(write(labels, variant, path), before, path)


def report(times: Times, before_kb: int, path: Path) -> None:
    frames = int(pydicom.dcmread(path, specific_tags=["NumberOfFrames"]).NumberOfFrames)
    print(
        json.dumps(
            {
                "write_s": times.write_s,
                "write_cpu_s": times.write_cpu_s,
                "verify_cpu_s": times.verify_cpu_s,
                "extra_mb": (times.peak_kb - before_kb) * 1024 / 1e6,
                "frames": frames,
                "size_mb": path.stat().st_size / 1e6,
            }
        )
    )


def unlike_frames(folder: Path, ours: str, theirs: str) -> str:
    """What a row says where two Segmentations of the same labels have unlike numbers of frames."""
    paths = [folder / f"{way}.dcm" for way in (ours, theirs)]
    counts = [int(pydicom.dcmread(path, stop_before_pixels=True).NumberOfFrames) for path in paths]
    if counts[0] == counts[1]:
        return ""
    said = [
        f"{count} frames ({sum(not frame.any() for frame in iter_pixels(path))} empty)"
        for path, count in zip(paths, counts, strict=True)
    ]
    return f", ours {said[0]}, its {said[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=397)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--structures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--labels", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.one:
        measure_one(options.one, options.labels)
        return
    with tempfile.TemporaryDirectory() as folder:
        labels_path = Path(folder) / "labels.npy"
        labels = make_labels(options.planes, options.matrix, options.structures)
        np.save(labels_path, labels)
        dcmqi_writer.write_inputs(Path(folder), labels, SPACING_MM)
        structures = np.count_nonzero(np.bincount(labels.ravel())[1:])
        del labels
        unlike = {}
        results: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for variant in (*VARIANTS, *RIVALS, *DCMQI):
                command = [sys.executable, __file__, "--one", variant, "--labels", labels_path]
                output = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                results.setdefault(variant, []).append(json.loads(output))
        for ours, theirs, _ in COMPARISONS:
            unlike[theirs] = unlike_frames(Path(folder), ours, theirs)
    print(f"{options.matrix} x {options.matrix} x {options.planes}, medians of {options.rounds}")
    median = {
        variant: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for variant, runs in results.items()
    }
    for variant, value in median.items():
        print(
            f"{variant:24} write {value['write_s']:6.2f} s (CPU {value['write_cpu_s']:5.2f} s)  "
            f"verify CPU {value['verify_cpu_s']:5.2f} s  +{value['extra_mb']:4.0f} MB  "
            f"{value['frames']:5.0f} frames  {value['size_mb']:6.2f} MB"
        )
    size = f"{options.matrix} x {options.matrix} x {options.planes}, {structures} structures"
    rows = []
    for ours, theirs, written in COMPARISONS:
        figures = median[ours]["write_cpu_s"], theirs, median[theirs]["write_cpu_s"]
        peaks = [median[way]["extra_mb"] if way not in DCMQI else None for way in (ours, theirs)]
        work = f"{written}, {size}{unlike[theirs]}"
        row = Row("SEG writing", work, Unit.CPU_SECONDS, *figures, *peaks, rounds=options.rounds)
        rows.append(row)
        print(f"{theirs} takes {rows[-1].ratio:.1f} x the CPU time of {ours}{unlike[theirs]}")
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
