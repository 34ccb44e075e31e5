"""A site hands its jobs over to a worker elsewhere: real processes, a real PostgreSQL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest
from postgres_peer import PostgresPeer

from inference.volume import Volume
from pacs_bridge.demo_archive import AE_TITLE, run_archive
from pacs_bridge.demo_score import decode
from pacs_bridge.ledger.ledger import Ledger

LIMIT_S = 120.0

SITE = """
data_folder = "data"
listener = {{ port = 0, peers = [{{ ae_title = "*", addresses = ["127.0.0.0/8"] }}] }}
collector = {{ quiet_period_s = 0.3, check_interval_s = 0.05 }}
disk = {{ accept_above_free_gib = 0.0, reserve_free_gib = 0.0 }}
models = {{ folder = {models} }}
workers = {{ devices = ["cpu"], lease_s = 5.0 }}
queue = {{ url = {url} }}
destinations = [{{ name = "archive", ae_title = "{title}", host = "127.0.0.1", port = {port} }}]
routes = [{{ name = "all", model = "tiny", destinations = ["archive"] }}]
"""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A PACS: the folder that it fills, and its port."""
    folder, port, leave = tmp_path / "archive", threading.Event(), threading.Event()
    ports: list[int] = []

    def announce(number: int) -> None:
        ports.append(number)
        port.set()

    thread = threading.Thread(target=run_archive, args=(folder, announce, leave))
    thread.start()
    assert port.wait(30)
    yield folder, ports[0]
    leave.set()
    thread.join()


@contextmanager
def remote_worker(folder: Path, site: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose machine has the site's data folder mounted at another place."""
    folder.mkdir()
    (folder / "mounted").symlink_to(site.parent / "data")
    config = folder / "bridge.toml"
    text = site.read_text().replace('"data"', '"mounted"')
    config.write_text("\n".join(each for each in text.splitlines() if "queue" not in each))
    command = [sys.executable, "-m", "pacs_bridge", "work", "--config", str(config)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, "--device", "cpu", "--queue", url], stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


@pytest.mark.pacs
def test_a_series_is_segmented_elsewhere_and_its_result_sent_from_here_through_an_outage(
    tmp_path: Path,
    postgres: PostgresPeer,
    archive: tuple[Path, int],
    tiny_models: Path,
    serving: Callable[[Path], Any],
    wait_for: Callable[..., None],
    send: Callable[..., list[int]],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    received, port = archive
    url = postgres.new_database()
    site = tmp_path / "bridge.toml"
    site.write_text(
        SITE.format(
            models=json.dumps(str(tiny_models)), url=json.dumps(url), title=AE_TITLE, port=port
        )
    )
    with (
        serving(site) as served,
        remote_worker(tmp_path / "elsewhere", site, url) as worker,
    ):
        assert "0 workers, jobs to queue default" in served.ready
        postgres.stop()
        series = [pydicom.dcmread(path) for path in make_series(bright_volume)]
        assert set(send(served.port, series)) == {0}
        wait_for(lambda: "queue-unavailable" in events(tmp_path / "serve.log"), LIMIT_S)
        postgres.start()
        wait_for(lambda: list(received.glob("*.dcm")), LIMIT_S)

        (result,) = received.glob("*.dcm")
        assert decode(result, bright_volume.geometry).present()
        assert "job-complete" in events(tmp_path / "elsewhere" / "log")
        wait_for(lambda: "delivery-sent" in events(tmp_path / "serve.log"), LIMIT_S)
        assert served.stop() == 0
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0

    with psycopg.connect(url) as connection:
        for table in ("pacs_bridge_jobs", "procrastinate_jobs", "procrastinate_workers"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    assert not list((tmp_path / "data" / "tickets").iterdir())
    ledger = Ledger.open(tmp_path / "data" / "ledger.sqlite")
    states = [row["state"] for row in _rows(ledger, "SELECT state FROM jobs")]
    assert states == ["sent"]
    assert _rows(ledger, "SELECT deaths FROM jobs")[0]["deaths"] == 0
    ledger.close()


def _rows(ledger: Ledger, query: str) -> list[Any]:
    with ledger.database.read() as connection:
        return connection.execute(query).fetchall()
