"""A site hands its jobs over to a worker elsewhere: real processes, a real PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest
from postgres_peer import PostgresPeer

from inference.volume import Volume
from pacs_bridge.demo_archive import AE_TITLE
from pacs_bridge.demo_score import decode
from pacs_bridge.ledger.ledger import Ledger

LIMIT_S = 120.0

#: A worker that notices within seconds that the network has swallowed its server.
QUICK = (
    "connect_timeout=2&tcp_user_timeout=1000"
    "&keepalives_idle=1&keepalives_interval=1&keepalives_count=2"
)

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


@contextmanager
def remote_worker(
    folder: Path, site: Path, url: str, inside: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose machine has the site's data folder mounted at another place.

    ``inside`` is the beginning of the command that puts it there.
    """
    folder.mkdir()
    (folder / "mounted").symlink_to(site.parent / "data")
    config = folder / "bridge.toml"
    text = site.read_text().replace('"data"', '"mounted"')
    config.write_text("\n".join(each for each in text.splitlines() if "queue" not in each))
    command = [*inside, sys.executable, "-m", "pacs_bridge", "work", "--config", str(config)]
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
        for table in ("pacs_bridge_jobs", "procrastinate_jobs", "pacs_bridge_workers"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    assert not list((tmp_path / "data" / "tickets").iterdir())
    ledger = Ledger.open(tmp_path / "data" / "ledger.sqlite")
    states = [row["state"] for row in _rows(ledger, "SELECT state FROM jobs")]
    assert states == ["sent"]
    assert _rows(ledger, "SELECT deaths FROM jobs")[0]["deaths"] == 0
    ledger.close()


class Machine:
    """A network namespace with a cable to this one.

    Parameters
    ----------
    number
        Of the machine: its network is 10.231.``number``.0/24, this side has .1.

    Raises
    ------
    subprocess.CalledProcessError
        When it cannot be made; what was made of it is gone again.
    """

    def __init__(self, number: int) -> None:
        self._name = f"{_NAMES}{os.getpid()}n{number}"
        self._cable = f"b{os.getpid() % 100_000}n{number}"
        self.address = f"10.231.{number}.1"
        self.inside = ("ip", "netns", "exec", self._name)
        _ip(f"netns add {self._name}")
        try:
            for command in (
                f"link add {self._cable} type veth peer name eth0 netns {self._name}",
                f"addr add {self.address}/24 dev {self._cable}",
                f"link set {self._cable} up",
                f"-n {self._name} addr add 10.231.{number}.2/24 dev eth0",
                f"-n {self._name} link set eth0 up",
            ):
                _ip(command)
        except subprocess.CalledProcessError:
            self.remove()
            raise

    def cut(self) -> None:
        _ip(f"link set {self._cable} down")

    def mend(self) -> None:
        _ip(f"link set {self._cable} up")

    def remove(self) -> None:
        _ip(f"netns del {self._name}")


_NAMES = "bridge"


def _ip(command: str) -> str:
    return subprocess.run(
        ["ip", *command.split()], check=True, capture_output=True, text=True
    ).stdout


def _remove_orphans() -> None:
    """Take down what a killed run of these tests left: its addresses would answer for ours."""
    for name in _ip("netns list").split():
        owner = re.fullmatch(rf"{_NAMES}(\d+)n\d+", name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            _ip(f"netns del {name}")


def _free_networks(count: int) -> list[int]:
    """Third octets that no interface here has, so that two runs can stand side by side."""
    routes = _ip("route")
    start = os.getpid() * count
    octets = ((start + step) % 256 for step in range(256))
    return list(islice((each for each in octets if f"10.231.{each}.0/24" not in routes), count))


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    made: list[Machine] = []
    try:
        _remove_orphans()
        made.extend(Machine(number) for number in _free_networks(2))
    except (OSError, subprocess.CalledProcessError) as error:
        for machine in made:
            machine.remove()
        if os.environ.get("CI") == "true":
            pytest.fail(f"no network namespaces can be made here: {error}")
        pytest.skip("no network namespaces can be made here")
    yield made
    for machine in made:
        machine.remove()


@pytest.mark.pacs
def test_the_job_of_a_machine_that_is_cut_off_is_taken_over_and_its_late_result_refused(
    tmp_path: Path,
    postgres: PostgresPeer,
    machines: list[Machine],
    archive: tuple[Path, int],
    tiny_models: Path,
    serving: Callable[[Path], Any],
    wait_for: Callable[..., None],
    send: Callable[..., list[int]],
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    received, port = archive
    server = PostgresPeer(addresses=tuple(machine.address for machine in machines))
    site = tmp_path / "bridge.toml"
    site.write_text(
        SITE.format(
            models=json.dumps(str(tiny_models)),
            url=json.dumps(server.url()),
            title=AE_TITLE,
            port=port,
        )
    )
    logs = [tmp_path / f"machine{number}" / "log" for number in (0, 1)]

    def claimed() -> list[int]:
        return [n for n, log in enumerate(logs) if "job-claimed" in events(log)]

    try:
        with ExitStack() as stack:
            served = stack.enter_context(serving(site))
            for log, machine in zip(logs, machines, strict=True):
                url = f"{server.url(host=machine.address)}?{QUICK}"
                stack.enter_context(remote_worker(log.parent, site, url, machine.inside))
            series = [pydicom.dcmread(path) for path in make_series(bright_volume)]
            assert set(send(served.port, series)) == {0}
            wait_for(claimed, LIMIT_S)
            (first,) = claimed()
            machines[first].cut()
            wait_for(lambda: list(received.glob("*.dcm")), LIMIT_S)
            assert set(claimed()) == {0, 1}
            assert "job-complete" in events(logs[1 - first])
            machines[first].mend()
            wait_for(lambda: "job-lost" in events(logs[first]), LIMIT_S)
            assert "job-complete" not in events(logs[first])
            wait_for(lambda: "delivery-sent" in events(tmp_path / "serve.log"), LIMIT_S)
            assert served.stop() == 0
    finally:
        server.remove()

    assert len(list(received.glob("*.dcm"))) == 1
    assert len(list((tmp_path / "data" / "results").glob("*/*"))) == 1
    ledger = Ledger.open(tmp_path / "data" / "ledger.sqlite")
    assert [row["state"] for row in _rows(ledger, "SELECT state FROM jobs")] == ["sent"]
    ledger.close()


def _rows(ledger: Ledger, query: str) -> list[Any]:
    with ledger.database.read() as connection:
        return connection.execute(query).fetchall()
