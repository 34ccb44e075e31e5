"""``pacs-bridge serve`` as a site runs it: real processes, real associations."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import CliRunner

from inference.volume import Volume
from pacs_bridge.cli.main import main
from pacs_bridge.demo_archive import AE_TITLE
from pacs_bridge.demo_score import decode

#: For a result, on a busy machine.
LIMIT_S = 200.0

CONFIG = """
data_folder = "data"
[listener]
port = {port}
peers = [{{ ae_title = "*", addresses = ["127.0.0.1"] }}]
[collector]
quiet_period_s = 0.5
check_interval_s = 0.1
[disk]
accept_above_free_gib = 0.0
reserve_free_gib = 0.0
[models]
folder = {models}
[workers]
devices = ["cpu"]
[[destinations]]
name = "archive"
ae_title = "{archive_title}"
host = "127.0.0.1"
port = {archive_port}
retry = {{ first_wait_s = 0.5, max_wait_s = 2.0 }}
[[routes]]
name = "all"
model = "{model}"
destinations = ["{destination}"]
"""


@pytest.fixture
def write_config(tmp_path: Path, tiny_models: Path) -> Callable[..., Path]:
    def write(**values: object) -> Path:
        path = tmp_path / "bridge.toml"
        defaults = {
            "port": 0,
            "models": json.dumps(str(tiny_models)),
            "archive_title": AE_TITLE,
            "archive_port": 104,
            "model": "tiny",
            "destination": "archive",
        }
        path.write_text(CONFIG.format(**(defaults | values)))
        return path

    return write


@pytest.fixture
def start(serving) -> Iterator[Callable[[Path], Any]]:
    """Services that end with the test; see ``serving``."""
    with ExitStack() as services:
        yield lambda config: services.enter_context(serving(config))


def _send(send, port: int, paths: list[Path]) -> None:
    assert set(send(port, [pydicom.dcmread(path) for path in paths])) == {0}


def test_a_series_comes_out_as_a_segmentation_though_the_worker_is_killed_in_between(
    archive: tuple[Path, int],
    write_config: Callable[..., Path],
    start: Callable[[Path], Any],
    wait_for: Callable[..., None],
    send,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    folder, port = archive
    service = start(write_config(archive_port=port))
    worker = next(
        line["pid"]
        for line in service.log()
        if line["event"] == "process-started" and line["name"] == "worker0"
    )

    _send(send, service.port, make_series(bright_volume))
    wait_for(lambda: any(line["event"] == "job-claimed" for line in service.log()), LIMIT_S)
    os.kill(int(str(worker)), signal.SIGKILL)
    wait_for(lambda: list(folder.glob("*.dcm")), LIMIT_S)

    (received,) = folder.glob("*.dcm")
    assert decode(received, bright_volume.geometry).present()
    events = [line["event"] for line in service.log()]
    assert "process-died" in events
    wait_for(lambda: any(line["event"] == "delivery-sent" for line in service.log()), LIMIT_S)
    assert service.stop() == 0
    assert "listener-closed" in [line["event"] for line in service.log()]
    assert not list((service.folder / "data" / "results").rglob("*.partial"))


def test_what_is_wrong_at_the_start_is_said_all_at_once(
    write_config: Callable[..., Path],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = write_config(port=taken.getsockname()[1], model="no-such-model")
        result = CliRunner().invoke(main, ["serve", "--config", str(config)])
    assert result.exit_code == 2
    assert "routes[0].model: no model 'no-such-model'" in result.stderr
    assert "listener.port: cannot listen at 127.0.0.1" in result.stderr
    assert "Address already in use" in result.stderr


def test_a_configuration_that_is_not_there_is_said_with_the_option_that_names_one(
    tmp_path: Path,
) -> None:
    for command in ("serve", "jobs", "doctor", "work"):
        result = CliRunner().invoke(main, [command, "--config", str(tmp_path / "none.toml")])
        assert result.exit_code == 2
        assert "none.toml" in result.stderr
        assert "--config FILE" in result.stderr


def test_every_fault_of_the_file_is_said_with_its_key(write_config: Callable[..., Path]) -> None:
    config = write_config(destination="nowhere", archive_title="LONGER_THAN_SIXTEEN")
    config.write_text(config.read_text() + "colour = 1\n[listener2]\nx = 1\n")
    result = CliRunner().invoke(main, ["serve", "--config", str(config)])
    assert result.exit_code == 2
    for said in (
        "listener2: unknown key",
        "routes[0].colour: unknown key",
        "destinations[0].ae_title: an AE title has at most 16 characters",
        "routes[0].destinations: no destination 'nowhere'",
    ):
        assert said in result.stderr


def test_a_model_with_changed_weights_ends_the_service(
    write_config: Callable[..., Path], tiny_models: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "models" / "tiny"
    copy.mkdir(parents=True)
    for path in (tiny_models / "tiny").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    config = write_config(models=json.dumps(str(copy.parent)))
    command = [sys.executable, "-m", "pacs_bridge", "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2
    assert "model-checksum" in ended.stderr
    assert ended.stdout == ""


def test_jobs_retry_and_doctor_work_on_a_service_that_is_down(
    write_config: Callable[..., Path],
    start: Callable[[Path], Any],
    wait_for: Callable[..., None],
    send,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    config = write_config(archive_port=port)
    before = CliRunner().invoke(main, ["jobs", "--config", str(config)])
    assert (before.exit_code, "no ledger" in before.stderr) == (2, True)

    service = start(config)
    assert "route all: tiny is for demonstration" in service.ready
    assert any(
        (line["event"], line.get("route")) == ("demonstration-model", "all")
        for line in service.log()
    )
    _send(send, service.port, make_series(bright_volume)[:5])
    wait_for(lambda: any(line["event"] == "job-skipped" for line in service.log()), LIMIT_S)
    assert service.stop() == 0

    listed = CliRunner().invoke(main, ["jobs", "--config", str(config), "--json"])
    (job,) = json.loads(listed.stdout)
    assert (job["state"], job["reason"]) == ("skipped", "too-few-slices")
    of_series = ["jobs", "--config", str(config), "--series", job["series_instance_uid"]]
    for wanted, count in (("skipped", 1), ("dead", 0)):
        some = CliRunner().invoke(main, [*of_series, "--json", "--state", wanted])
        assert len(json.loads(some.stdout)) == count
    one = CliRunner().invoke(main, ["jobs", "1", "--config", str(config)])
    assert "too-few-slices" in one.stdout
    assert CliRunner().invoke(main, ["retry", "1", "--config", str(config)]).exit_code == 0
    assert CliRunner().invoke(main, ["retry", "99", "--config", str(config)]).exit_code == 1
    listed = CliRunner().invoke(main, ["jobs", "--config", str(config), "--json"])
    assert json.loads(listed.stdout)[0]["state"] == "ready"

    checked = CliRunner().invoke(main, ["doctor", "--config", str(config), "--json"])
    assert checked.exit_code == 1
    health = {line["subject"]: line["health"] for line in json.loads(checked.stdout)}
    assert health["destination archive"] == "bad"
    assert health["device cpu"] == health["ledger"] == health["disk"] == "good"
    assert health["model tiny"] == health["route all"] == "doubt"


def test_doctor_asks_destinations_what_they_take(
    archive: tuple[Path, int], write_config: Callable[..., Path]
) -> None:
    config = write_config(archive_port=archive[1])
    checked = CliRunner().invoke(main, ["doctor", "--config", str(config)])
    assert checked.exit_code == 0, checked.output
    assert "C-ECHO succeeded; accepts labelmap, binary" in checked.stdout
