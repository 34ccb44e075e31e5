"""Every benchmark, at the size that its figures are published for and at the smallest one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine_rows import engine_rows, segment_rows
from row import Row, read_rows

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script, and how it is called.

    Parameters
    ----------
    name
        It is ``bench_<name>.py``.
    full, quick
        Options for the published figures, and for a run that shows only that it works.
    rows
        Reads what it wrote with ``--json``.
    """

    name: str
    full: str
    quick: str
    rows: Callable[[Path], list[Row]] = read_rows

    @property
    def script(self) -> Path:
        """Where it is."""
        return FOLDER / f"bench_{self.name}.py"


SUITE = (
    Benchmark("peak", "", "--size 256 --memory-mb 16 --runs 2"),
    Benchmark("reading", "", "--slices 12 --matrix 64 --runs 1 --long 0 EXPLICIT_LITTLE JPEG_LS"),
    Benchmark("receiving", "", "--slices 4 --matrix 64 --runs 1"),
    Benchmark("ledger", "", "--series 200 --claims 10"),
    Benchmark("queue", "", "--waiting 40 --claims 10"),
    Benchmark("dispatch", "", "--jobs 50 --kill-every 1"),
    Benchmark("scale_out", "", "--jobs 8 --seconds 0.05 --behind 20"),
    Benchmark("model_chain", "--monai", "--slices 12 --matrix 48 --monai"),
    Benchmark("seg_writing", "--rounds 3", "--planes 8 --matrix 64 --structures 4 --rounds 1"),
    Benchmark("cost_curve", "", "--slices 12 24 --matrix 64 --runs 1"),
    Benchmark(
        "engine",
        "--rounds 3 --parts windows,3mm,1.5mm,body-3mm,body-1.5mm",
        "--small --rounds 1 --parts windows,3mm,1.5mm,body-3mm,body-1.5mm",
        engine_rows,
    ),
    Benchmark(
        "segment",
        "--slices 397 1600 --spacing 1.5 --both",
        "--slices 12 --matrix 48 --both",
        segment_rows,
    ),
    Benchmark("archive", "", "--series 2 --slices 12 --matrix 48"),
    Benchmark("whole", "--rounds 3", "--slices 12 --matrix 48 --spacings 3.0 --rounds 1"),
    Benchmark("borders", "", "--small --patients 9:HEAD_NECK --spacing 6 4 --rounds 1"),
    Benchmark("agreement", "--seeds 21 9", "--seeds 9 --planes 12 --window 32 --margin-mm 12"),
    Benchmark("prepare", "", "--spacing 12 --runs 1"),
    Benchmark("case_cache", "", "--volumes 4 --edge 40 --window 16 --draws 5"),
    Benchmark("augmentation", "", "--window 24 --runs 1"),
    Benchmark("evaluation", "", "--planes 24 --matrix 64 --structures 12"),
    Benchmark(
        "training",
        "",
        "--window 32 --batch 1 --steps 1 --rounds 1 --volumes 1 --edge 40",
    ),
)
