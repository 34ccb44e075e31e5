"""Receiving a series: our listener against DCMTK's storescp, sender DCMTK's storescu.

``python tests/benchmarks/bench_receiving.py [--slices N] [--matrix M] [--runs R]`` prints a
table. Receivers alternate; the best of the runs counts. Our listener flushes every instance to
the disk and into its ledger before it answers; storescp leaves its files to the page cache. The
spool lies in the folder that ``--folder`` names: a folder in memory shows what the disk costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dicom_seg.synthetic.series import write_ct_series
from inference.geometry import Geometry
from inference.volume import Volume

LISTENER = """
    import sys
    from pathlib import Path
    from pacs_bridge.config.load import load_config
    from pacs_bridge.receive.service import run_listener

    run_listener(load_config(Path(sys.argv[1])), lambda port: print(port, flush=True))
"""
CONFIG = """
data_folder = "data"
listener = { port = 0, peers = [{ ae_title = "*", addresses = ["127.0.0.1"] }] }
disk = { accept_above_free_gib = 0.0, reserve_free_gib = 0.0 }
log = { file = "log.jsonl" }
destinations = [{ name = "a", ae_title = "A", host = "localhost", port = 104 }]
routes = [{ name = "r", model = "m", destinations = ["a"] }]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=397)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as series, no_delay():
        size_mb = write(Path(series), options.slices, options.matrix) / 1e6
        print(f"{options.slices} instances, {size_mb:.0f} MB")
        print(f"{'receiver':26} {'associations':>12} {'s':>7} {'MB/s':>6} {'/s':>6} {'ratio':>6}")
        for associations in (1, 4):
            parts = split(Path(series), associations)
            best: dict[str, float] = {}
            for _ in range(options.runs):
                for name, receiver in (("storescp", storescp), ("pacs-bridge", listener)):
                    with (
                        tempfile.TemporaryDirectory(dir=options.folder) as folder,
                        receiver(Path(folder)) as port,
                    ):
                        elapsed_s = send(parts, port)
                        best[name] = min(best.get(name, elapsed_s), elapsed_s)
            for name, elapsed_s in best.items():
                print(
                    f"{name:26} {associations:12} {elapsed_s:7.2f} {size_mb / elapsed_s:6.0f}"
                    f" {options.slices / elapsed_s:6.0f} {best['storescp'] / elapsed_s:6.2f}"
                )
            for part in parts:
                shutil.rmtree(part)


@contextmanager
def no_delay() -> Iterator[None]:
    """DCMTK without Nagle's algorithm, in every process that is started."""
    os.environ["TCP_NODELAY"] = "1"
    yield
    del os.environ["TCP_NODELAY"]


def write(folder: Path, slices: int, matrix: int) -> int:
    """A native series of noise; gives its bytes."""
    rng = np.random.default_rng(1)
    hu = rng.integers(-1000, 1500, (slices, matrix, matrix), dtype=np.int16)
    geometry = Geometry(
        shape=hu.shape,
        origins_mm=np.array([(0.0, 0.0, 1.5 * z) for z in range(slices)]),
        row_step_mm=np.array([0.0, 0.8, 0.0]),
        column_step_mm=np.array([0.8, 0.0, 0.0]),
        frame_of_reference_uid="2.25.1",
    )
    return sum(path.stat().st_size for path in write_ct_series(Volume(hu, geometry), folder))


def split(series: Path, count: int) -> list[Path]:
    """The series as so many folders of links."""
    files = sorted(path for path in series.iterdir() if path.is_file())
    parts = [series / f"part{number}" for number in range(count)]
    for number, part in enumerate(parts):
        part.mkdir()
        for path in files[number::count]:
            (part / path.name).hardlink_to(path)
    return parts


def send(parts: Sequence[Path], port: int) -> float:
    """Send each part over an association of its own; gives the seconds until all are through."""
    start = time.perf_counter()
    storescu = ["/usr/bin/storescu", "--max-pdu", "131072", "-aec", "PACSBRIDGE", "+sd"]
    senders = [
        subprocess.Popen([*storescu, "127.0.0.1", str(port), part], stdout=subprocess.DEVNULL)
        for part in parts
    ]
    assert [sender.wait() for sender in senders] == [0] * len(parts)
    return time.perf_counter() - start


@contextmanager
def listener(folder: Path) -> Iterator[int]:
    """Our listener; gives its port."""
    (folder / "bridge.toml").write_text(CONFIG)
    command = [sys.executable, "-c", textwrap.dedent(LISTENER), str(folder / "bridge.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
    ended = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(one.get("refused", 0) == 0 for one in ended)


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's receiver; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["/usr/bin/storescp", "--fork", "--max-pdu", "131072", "-od", folder, str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
        process.terminate()


if __name__ == "__main__":
    main()
