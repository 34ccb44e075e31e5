"""Receiving a series: our listener against storescp and Orthanc, sender DCMTK's storescu.

``python tests/benchmarks/bench_receiving.py [--slices N] [--matrix M] [--runs R] [--json FILE]``
prints a table. Receivers alternate; the best of the runs counts. Our listener flushes every
instance to the disk and into its ledger before it answers; storescp leaves its files to the page
cache. The spool lies in the folder that ``--folder`` names: a folder in memory shows what the disk
costs.

DCMTK runs out of the box, and ``tuned``: TCP_NODELAY=1 in the environment of sender and receiver,
and PDUs of 128 KiB. Memory is the receiver's peak, of one association.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from process_memory import status_mb
from row import Row, Unit, add_json_option, write_rows

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

BRIDGE = "pacs-bridge"
TUNED = ("--max-pdu", "131072")  #: of DCMTK's programs, with TCP_NODELAY=1 around them


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many associations at once, and whether DCMTK's programs are tuned."""

    associations: int
    tuned: bool


TRAFFIC = (Traffic(1, False), Traffic(1, True), Traffic(4, True))


@dataclass(slots=True)
class Receiver:
    """A receiver that runs, and the most memory it took, once it has ended."""

    port: int
    process: subprocess.Popen[str]
    peak_mb: float | None = None

    def look(self) -> None:
        """Note the peak memory of the process that listens."""
        self.peak_mb = status_mb("VmHWM", self.process.pid)


@dataclass(frozen=True, slots=True)
class Reception:
    """The best of some runs."""

    elapsed_s: float
    peak_mb: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=397)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as series:
        size_mb = write(Path(series), options.slices, options.matrix) / 1e6
        print(f"{options.slices} instances, {size_mb:.0f} MB")
        print(
            f"{'sender':9} {'at once':>7} {'receiver':12} {'s':>7} {'MB/s':>6} {'/s':>6}"
            f" {'ratio':>6} {'peak MB':>8}"
        )
        for traffic in TRAFFIC:
            associations = traffic.associations
            parts = split(Path(series), associations)
            with no_delay(traffic.tuned):
                best = in_turns(parts, traffic, options.runs, options.folder)
            for part in parts:
                shutil.rmtree(part)
            sender = "tuned" if traffic.tuned else "as it is"
            for name, found in best.items():
                print(
                    f"{sender:9} {associations:7} {name:12} {found.elapsed_s:7.2f}"
                    f" {size_mb / found.elapsed_s:6.0f} {options.slices / found.elapsed_s:6.0f}"
                    f" {found.elapsed_s / best[BRIDGE].elapsed_s:6.2f} {found.peak_mb or 0:8.0f}",
                    flush=True,
                )
            plural = "association" if associations == 1 else "associations"
            work = f"{options.slices} of {options.matrix} x {options.matrix}"
            work += f", {associations} {plural}, storescu {sender}"
            rows += comparisons(work, best)
    write_rows(options.json, rows)


def in_turns(
    parts: Sequence[Path], traffic: Traffic, runs: int, folder: Path | None
) -> dict[str, Reception]:
    """Let the receivers take turns."""
    best: dict[str, Reception] = {}
    for _ in range(runs):
        for name, start in RECEIVERS.items():
            with (
                tempfile.TemporaryDirectory(dir=folder) as out,
                start(Path(out), traffic) as receiver,
            ):
                elapsed_s = send(parts, receiver.port, traffic.tuned)
                if len(parts) == 1:
                    receiver.look()
            if name not in best or elapsed_s < best[name].elapsed_s:
                best[name] = Reception(elapsed_s, receiver.peak_mb)
    return best


def comparisons(work: str, best: dict[str, Reception]) -> list[Row]:
    """Ours against everybody else."""
    ours = best[BRIDGE]
    return [
        Row(
            *("receiving", work, Unit.SECONDS, ours.elapsed_s, name, theirs.elapsed_s),
            *(ours.peak_mb, theirs.peak_mb),
        )
        for name, theirs in best.items()
        if name != BRIDGE
    ]


@contextmanager
def no_delay(tuned: bool) -> Iterator[None]:
    """DCMTK without Nagle's algorithm, in every process that is started."""
    before = os.environ.pop("TCP_NODELAY", None)
    if tuned:
        os.environ["TCP_NODELAY"] = "1"
    yield
    os.environ.pop("TCP_NODELAY", None)
    if before is not None:
        os.environ["TCP_NODELAY"] = before


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


def send(parts: Sequence[Path], port: int, tuned: bool) -> float:
    """Send each part over an association of its own; gives the seconds until all are through."""
    start = time.perf_counter()
    storescu = ["/usr/bin/storescu", *(TUNED if tuned else ()), "-aec", "PACSBRIDGE", "+sd"]
    senders = [
        subprocess.Popen([*storescu, "127.0.0.1", str(port), part], stdout=subprocess.DEVNULL)
        for part in parts
    ]
    assert [sender.wait() for sender in senders] == [0] * len(parts)
    return time.perf_counter() - start


@contextmanager
def listener(folder: Path, traffic: Traffic) -> Iterator[Receiver]:
    """Our listener."""
    (folder / "bridge.toml").write_text(CONFIG)
    command = [sys.executable, "-c", textwrap.dedent(LISTENER), str(folder / "bridge.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Receiver(int(process.stdout.readline()), process)
        process.send_signal(signal.SIGTERM)
    ended = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(one.get("refused", 0) == 0 for one in ended)


@contextmanager
def storescp(folder: Path, traffic: Traffic) -> Iterator[Receiver]:
    """DCMTK's receiver; one process for one association, and for several as it is meant to."""
    fork = ("--fork",) if traffic.associations > 1 else ()
    command = ["/usr/bin/storescp", *fork, *(TUNED if traffic.tuned else ()), "-od", str(folder)]
    with running(lambda port: [*command, str(port)]) as receiver:
        yield receiver


@contextmanager
def orthanc(folder: Path, traffic: Traffic) -> Iterator[Receiver]:
    """Orthanc with its own index, as it is delivered, without its web page."""

    def command(port: int) -> list[str]:
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            "HttpServerEnabled": False,
            "DicomAet": "PACSBRIDGE",
            "DicomPort": port,
            "DicomAlwaysAllowStore": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        return ["/usr/sbin/Orthanc", str(folder / "orthanc.json")]

    with running(command) as receiver:
        yield receiver


@contextmanager
def running(command: Callable[[int], list[str]]) -> Iterator[Receiver]:
    """A receiver on a free port, from when it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(port), text=True, **quiet) as process:
        deadline = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None, f"{process.args} has ended"
            assert time.monotonic() < deadline, f"{process.args} does not listen"
            time.sleep(0.05)
        try:
            yield Receiver(port, process)
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


RECEIVERS: dict[str, Callable[[Path, Traffic], AbstractContextManager[Receiver]]] = {
    "storescp": storescp,
    "Orthanc": orthanc,
    BRIDGE: listener,
}


if __name__ == "__main__":
    main()
