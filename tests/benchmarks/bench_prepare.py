"""Preparing a raw case, against decompressing its 105 files and against the plain merge.

``python tests/benchmarks/bench_prepare.py [--spacing MM] [--case FOLDER] [--runs R] [--json
FILE]`` prints a table; one process a run, all in turn, the best counts. The case is a synthetic
patient with all its masks unless a folder of a real one is given. ``zlib`` and ``libdeflate``
only decompress the files: the first as Python's gzip does, the second into memory that is used
again. ``nibabel`` reads each mask, assigns, and saves. Peak memory is beyond the state after
the imports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
from process_memory import status_mb
from row import Row, Unit, add_json_option, write_rows

from inference.structures import STRUCTURES
from inference.synthetic.patient import SyntheticPatient, default_geometry
from training.prepare.outcome import Rules, Split
from training.prepare.raw_case import prepare_case
from training.prepare.raw_dataset import RawCase

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spacing", type=float, default=1.5)
    parser.add_argument("--case", type=Path, help="folder of a raw case, in place of a made one")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "CASE"), help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], Path(options.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        case = options.case or make_case(Path(folder) / "s0001", options.spacing)
        results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.runs):
            for way in WAYS:
                command = [sys.executable, __file__, "--measure", way, str(case)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results[way].append(json.loads(done.stdout))
    sums = {run["sum"] for way in ("ours", "nibabel") for run in results[way]}
    assert len(sums) == 1, f"labels differ: {sums}"
    best = {way: min(runs, key=lambda run: run["cpu_s"]) for way, runs in results.items()}
    shape = nib.load(case / "ct.nii.gz").shape if options.case else best["ours"]["shape"]
    print(f"{shape} voxels, 105 files, {best['ours']['packed_mb']:.1f} MB packed")
    print(f"{'way':12} {'wall s':>7} {'cpu s':>7} {'ours/it':>8} {'peak MB':>8}")
    for way, run in best.items():
        ratio = best["ours"]["cpu_s"] / run["cpu_s"]
        print(f"{way:12} {run['s']:7.2f} {run['cpu_s']:7.2f} {ratio:8.2f} {run['peak_mb']:8.0f}")
    work = f"105 files, {' x '.join(map(str, shape))}"
    write_rows(
        options.json, [row(work, best["ours"], best[way], way) for way in WAYS if way != "ours"]
    )


def row(work: str, ours: dict[str, float], theirs: dict[str, float], way: str) -> Row:
    """Against the plain merge, or against decompressing alone, which is less work."""
    peer = way if way == "nibabel" else f"{way}, decompressing alone"
    figures = (peer, theirs["cpu_s"], ours["peak_mb"], theirs["peak_mb"])
    return Row("prepare", work, Unit.CPU_SECONDS, ours["cpu_s"], *figures)


def make_case(folder: Path, spacing_mm: float) -> Path:
    """A synthetic patient as the raw dataset holds patients."""
    (folder / "segmentations").mkdir(parents=True)
    patient = SyntheticPatient.from_seed(7)
    geometry = default_geometry(patient, (spacing_mm,) * 3)
    volume, truth = patient.sample(geometry)
    affine = RAS @ geometry.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    _save(volume.hu.astype(np.int32), affine, folder / "ct.nii.gz")
    for structure in STRUCTURES:
        mask = (truth.labels == structure.id).astype(np.uint8)
        _save(mask, affine, folder / "segmentations" / f"{structure.name}.nii.gz")
    return folder


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(array.transpose(2, 1, 0), affine)
    image.set_sform(affine, 1)
    path.write_bytes(imagecodecs.gzip_encode(image.to_bytes(), level=6))


def ours(case: Path, out: Path) -> None:
    outcome = prepare_case(RawCase(case.name, case, Split.TRAINING), out, Rules(copy_images=True))
    assert outcome.prepared, outcome


def zlib(case: Path, out: Path) -> None:
    for path in _files(case):
        with gzip.open(path, "rb") as file:
            while file.read(1 << 20):
                pass


def libdeflate(case: Path, out: Path) -> None:
    memory = np.empty(0, np.uint8)
    for path in _files(case):
        packed = path.read_bytes()
        size = int.from_bytes(packed[-4:], "little")
        if memory.size < size:
            memory = np.empty(size, np.uint8)
        imagecodecs.gzip_decode(packed, out=memory[:size].data)


def nibabel(case: Path, out: Path) -> None:
    image = nib.load(case / "ct.nii.gz")
    labels = np.zeros(image.shape, np.uint8)
    for structure in STRUCTURES:
        mask = nib.load(case / "segmentations" / f"{structure.name}.nii.gz").get_fdata(
            caching="unchanged", dtype=np.float32
        )
        labels[mask > 0] = structure.id
    for folder in ("imagesTr", "labelsTr"):
        (out / folder).mkdir(parents=True)
    shutil.copyfile(case / "ct.nii.gz", out / "imagesTr" / f"{case.name}.nii.gz")
    nib.save(nib.Nifti1Image(labels, image.affine), out / "labelsTr" / f"{case.name}.nii.gz")


WAYS: dict[str, Callable[[Path, Path], None]] = {
    way.__name__: way for way in (ours, zlib, libdeflate, nibabel)
}


def _files(case: Path) -> list[Path]:
    return [case / "ct.nii.gz", *sorted((case / "segmentations").iterdir())]


def measure(way: str, case: Path) -> dict[str, object]:
    for path in _files(case):
        path.read_bytes()  # the disk is no part of the question
    with tempfile.TemporaryDirectory() as folder:
        before, resident_mb = resource.getrusage(resource.RUSAGE_SELF), status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        started = time.perf_counter()
        WAYS[way](case, Path(folder))
        wall_s = time.perf_counter() - started
        after, peak_mb = resource.getrusage(resource.RUSAGE_SELF), status_mb("VmHWM")
        made = list(Path(folder).glob("labelsTr/*"))
        labels = np.asarray(nib.load(made[0]).dataobj) if made else np.zeros(1, np.uint8)
    weights = np.arange(labels.size, dtype=np.int64) % 9973
    return {
        "s": wall_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": peak_mb - resident_mb,
        "packed_mb": sum(path.stat().st_size for path in _files(case)) / 1e6,
        "shape": labels.shape,
        "sum": int((labels.ravel(order="F") * weights).sum()),
    }


if __name__ == "__main__":
    main()
