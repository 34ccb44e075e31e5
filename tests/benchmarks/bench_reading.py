"""Reading a series: time and peak memory against pydicom and SimpleITK, one process a reading.

``python tests/benchmarks/bench_reading.py [--slices N] [--matrix M] [--runs R] [--json FILE]
[SYNTAX ...]`` prints a table. Readings of the three alternate; the best of the runs counts.
Peak memory is what a process took beyond its state after the imports, and beside it the size of
the volume. The last line is a native series of 1000 slices, by us alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from process_memory import status_mb
from row import Row, Unit, add_json_option, write_rows

SYNTAXES = ("EXPLICIT_LITTLE", "RLE", "JPEG_LOSSLESS_SV1", "JPEG_LS", "JPEG_2000_LOSSLESS")
READERS = ("ours", "pydicom", "SimpleITK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("syntaxes", nargs="*", default=SYNTAXES, metavar="SYNTAX")
    parser.add_argument("--slices", type=int, default=397)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--long", type=int, default=1000, help="slices of the long series; 0: none")
    parser.add_argument("--read", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(measure(options.read[0], Path(options.read[1]))))
        return
    print(
        f"{'syntax':20} {'reader':10} {'s':>7} {'ratio':>6} {'cpu s':>6}"
        f" {'peak MB':>8} {'volume MB':>9}"
    )
    rows = []
    for syntax in options.syntaxes:
        shape = (options.slices, options.matrix, options.matrix)
        rows += compare(syntax, shape, READERS, options.runs)
    if options.long:
        shape = (options.long, options.matrix, options.matrix)
        rows += compare("EXPLICIT_LITTLE", shape, ("ours",), 1)
    write_rows(options.json, rows)


def compare(
    syntax: str, shape: tuple[int, int, int], readers: Sequence[str], runs: int
) -> list[Row]:
    """Write one series and let every reader read it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), shape, syntax)
        results: dict[str, list[dict[str, float]]] = {reader: [] for reader in readers}
        for _ in range(runs):
            for reader in readers:
                command = [sys.executable, __file__, "--read", reader, folder]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results[reader].append(json.loads(done.stdout))
    sums = {run["sum"] for found in results.values() for run in found}
    assert len(sums) == 1, f"readers disagree: {sums}"
    best = {reader: min(run["s"] for run in found) for reader, found in results.items()}
    volume_mb = np.prod(shape, dtype=float) * 2 / 1e6
    for reader, seconds in best.items():
        peak = min(run["peak_mb"] for run in results[reader])
        cpu = min(run["cpu_s"] for run in results[reader])
        print(
            f"{syntax:20} {reader:10} {seconds:7.2f} {seconds / best['ours']:6.1f}"
            f" {cpu:6.2f} {peak:8.0f} {volume_mb:9.0f}",
            flush=True,
        )
    work = f"{syntax}, {shape[2]} x {shape[1]} x {shape[0]}"
    peaks = {reader: min(run["peak_mb"] for run in found) for reader, found in results.items()}
    ours = ("reading", work, Unit.SECONDS, best["ours"])
    if len(readers) == 1:
        return [Row(*ours, ours_peak_mb=peaks["ours"])]
    return [
        Row(*ours, peer, best[peer], peaks["ours"], peaks[peer])
        for peer in readers
        if peer != "ours"
    ]


def write(folder: Path, shape: tuple[int, int, int], syntax: str) -> None:
    """A noisy cylinder of tissue in air, written slab by slab to keep memory low."""
    from dicom_seg.synthetic.acquisition import stack
    from dicom_seg.synthetic.options import PixelFormat, SeriesOptions
    from dicom_seg.synthetic.pixel_encoding import PixelSyntax
    from dicom_seg.synthetic.series import write_ct_series
    from inference.volume import Volume

    rng = np.random.default_rng(7)
    y, x = np.indices(shape[1:]) / shape[1] - 0.5
    plane = np.where(np.hypot(x, y * 1.3) < 0.42, 40, -1000)
    hu = np.empty(shape, np.int16)
    for z in range(shape[0]):
        hu[z] = np.clip(plane + rng.normal(0, 12, shape[1:]), -1024, 3071)
    options = SeriesOptions(
        transfer_syntax_uid=PixelSyntax[syntax],
        pixels=PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),)),
    )
    write_ct_series(Volume(hu, stack(shape, (1.5, 0.8, 0.8))), folder, options)


def measure(reader: str, folder: Path) -> dict[str, float]:
    """Read a folder in this process."""
    paths = sorted(folder.iterdir())
    read = {"ours": read_ours, "pydicom": read_pydicom, "SimpleITK": read_sitk}[reader]()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = status_mb("VmRSS")
    start = time.perf_counter(), time.process_time()
    hu = read(paths)
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    peak_mb = status_mb("VmHWM") - before
    total = int(sum(int(plane.sum(dtype=np.int64)) for plane in hu))
    return {"s": seconds, "cpu_s": cpu, "peak_mb": peak_mb, "sum": total}


def read_ours():
    from dicom_seg.read.reader import read_stack
    from dicom_seg.read.series import examine_series

    def read(paths):
        (plan,) = examine_series(paths).stacks
        return read_stack(plan).volume.hu

    return read


def read_pydicom():
    """As it is written everywhere: data sets, sort by position, stack, rescale."""
    import pydicom

    def read(paths):
        slices = [pydicom.dcmread(path) for path in paths]
        slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        pixels = np.stack([ds.pixel_array for ds in slices])
        rescale = np.array([(ds.RescaleSlope, ds.RescaleIntercept) for ds in slices], float)
        hu = pixels * rescale[:, 0, None, None] + rescale[:, 1, None, None]
        return hu.astype(np.int16)

    return read


def read_sitk():
    import SimpleITK as sitk

    def read(paths):
        reader = sitk.ImageSeriesReader()
        names = reader.GetGDCMSeriesFileNames(str(paths[0].parent))
        reader.SetFileNames(names)
        return sitk.GetArrayFromImage(reader.Execute())

    return read


if __name__ == "__main__":
    main()
