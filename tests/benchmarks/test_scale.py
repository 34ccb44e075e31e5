"""The benchmarks of large ledgers and many workers, at sizes that say nothing of speed.

They end with status 1 when a job is lost or done twice, or an emergency has to wait in line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.parametrize(
    ("script", "options", "rows"),
    [
        ("bench_ledger.py", "--series 300 --claims 20", 11),
        ("bench_dispatch.py", "--jobs 150 --kill-every 0.4", 2),
        ("bench_scale_out.py", "--jobs 8 --seconds 0.1 --behind 100", 4),
    ],
)
def test_all_of_it_is_accounted_for(tmp_path: Path, script: str, options: str, rows: int) -> None:
    done = subprocess.run(
        [sys.executable, script, *options.split(), "--json", str(tmp_path / "rows.json")],
        cwd=FOLDER,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads((tmp_path / "rows.json").read_text())) == rows
