"""What ``doctor`` makes of an installation and the peers that it has, without changing it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pynetdicom import AE, evt

from inference.model_store import ModelStore
from pacs_bridge import network_disk
from pacs_bridge.checkup import CheckResult, Health, check_up, check_worker
from pacs_bridge.cli.main import main
from pacs_bridge.clock import SystemClock
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.queue import QueueConfig
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.home import LedgerHome
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.schema import MIGRATIONS
from pacs_bridge.machine import Machine
from pacs_bridge.postgres.ticket import made_identity
from pacs_bridge.queue import JobRequest

VERIFICATION = "1.2.840.10008.1.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture
def checked(make_config: Callable[..., BridgeConfig]) -> Iterator[Callable[..., CheckResult]]:
    """Check a destination that supports these SOP classes and answers C-ECHO in its own way."""
    servers = []

    def run(*sop_classes: str, answer: Callable[[evt.Event], int] = lambda _: 0) -> CheckResult:
        ae = AE(ae_title="ARCHIVE")
        for sop_class in sop_classes:
            ae.add_supported_context(sop_class)
        handlers = [(evt.EVT_C_ECHO, answer)]
        servers.append(ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers))
        port = servers[-1].server_address[1]
        config = make_config(
            destinations='[{ name = "archive", ae_title = "ARCHIVE", host = "127.0.0.1",'
            f" port = {port} }}]"
        )
        (found,) = [one for one in check_up(config) if one.subject == "destination archive"]
        return found

    yield run
    for server in servers:
        server.shutdown()


def test_a_destination_that_answers_is_good(checked: Callable[..., CheckResult]) -> None:
    found = checked(VERIFICATION, SEGMENTATION)
    assert (found.health, found.detail) == (Health.GOOD, "C-ECHO succeeded; accepts binary")


def test_a_failed_c_echo_is_bad_whatever_is_accepted(
    checked: Callable[..., CheckResult],
) -> None:
    found = checked(VERIFICATION, SEGMENTATION, answer=lambda _: 0x0110)
    assert found.health is Health.BAD
    assert "C-ECHO failed: status 0110H; accepts binary" in found.detail


def test_a_peer_that_hangs_up_on_c_echo_is_bad(checked: Callable[..., CheckResult]) -> None:
    def hang_up(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    found = checked(VERIFICATION, SEGMENTATION, answer=hang_up)
    assert found.health is Health.BAD
    assert "no answer" in found.detail


def test_a_destination_without_verification_is_judged_by_what_it_takes(
    checked: Callable[..., CheckResult],
) -> None:
    assert checked(SEGMENTATION).health is Health.GOOD
    found = checked(VERIFICATION)
    assert (found.health, "none of the kinds" in found.detail) == (Health.BAD, True)


def test_sources_and_web_destinations_that_cannot_be_reached_are_bad(
    make_config: Callable[..., BridgeConfig],
) -> None:
    config = make_config(
        destinations='[{ name = "archive", url = "http://127.0.0.1:1/dicom-web" }]',
        sources='[{ name = "vna", kind = "dicomweb", url = "http://127.0.0.1:1" },'
        ' { name = "pacs", kind = "dimse", ae_title = "PACS", host = "127.0.0.1", port = 1 },'
        ' { name = "run", kind = "plan", folder = "nowhere" }]',
    )
    found = {each.subject: each for each in check_up(config)}
    for subject in ("destination archive", "source vna", "source pacs", "source run"):
        assert found[subject].health is Health.BAD, subject


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but for the read marks that SQLite's readers share."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


def results(config: BridgeConfig) -> dict[str, CheckResult]:
    return {each.subject: each for each in check_up(config)}


def test_nothing_is_made_where_nothing_is_yet(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    config = make_config(
        log='{ file = "log/bridge.jsonl" }',
        control="{ port = 0 }",
        sources='[{ name = "vna", kind = "dicomweb", url = "http://127.0.0.1:1" }]',
    )
    before = files(ram_folder)

    found = results(config)

    assert (found["ledger"].detail, found["start"].health) == ("none yet", Health.GOOD)
    assert files(ram_folder) == before
    assert not config.data_folder.exists()


def test_a_service_that_runs_is_looked_at_and_left_alone(
    make_config: Callable[..., BridgeConfig],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = make_config(listener=_listener(port))
        ledger = Ledger.open(config.ledger_path)
        ledger.jobs.submit(JobRequest("1.2.3", 1, "all", "m", ("archive",)))
        claim = ledger.jobs.claim("w", 60.0)
        before = files(config.data_folder)

        found = results(config)

        assert (found["ledger"].health, found["ledger"].detail) == (Health.GOOD, "1 claimed")
        assert found["start"].health is Health.GOOD
        assert files(config.data_folder) == before
        ledger.jobs.heartbeat(claim, 60.0)
        ledger.close()
        stopped = results(config)
    assert (stopped["ledger"].detail, stopped["listener.port"].health) == ("1 claimed", Health.BAD)


def test_the_ledger_of_a_bridge_on_another_machine_is_left_alone(
    make_config: Callable[..., BridgeConfig],
    clock: SystemClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config()
    home = LedgerHome(config.ledger_path, Machine("bridge1", "its id", clock.boot_id()))
    ledger = Ledger.open(config.ledger_path, clock, home=home)
    ledger.jobs.submit(JobRequest("1.2.3", 1, "all", "m", ("archive",)))
    claim = ledger.jobs.claim("w", 60.0)
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:40 / / rw - nfs4 bridge1:/ rw\n")
    monkeypatch.setattr(network_disk, "_MOUNTS", mounts)
    before = files(config.data_folder)

    found = results(config)["ledger"]

    assert found.health is Health.DOUBT
    assert "bridge1" in found.detail
    assert files(config.data_folder) == before
    ledger.jobs.heartbeat(claim, 60.0)
    ledger.close()


def test_an_older_ledger_is_left_to_the_next_start_and_a_later_one_is_bad(
    make_config: Callable[..., BridgeConfig], clock: SystemClock
) -> None:
    config = make_config()
    Database(config.ledger_path, clock, migrations=MIGRATIONS[:4]).close()
    before = files(config.data_folder)
    older = results(config)["ledger"]
    assert (older.health, "version 4" in older.detail) == (Health.GOOD, True)
    assert files(config.data_folder) == before

    later = [*MIGRATIONS, lambda _: None]
    Database(config.ledger_path, clock, migrations=later).close()
    assert results(config)["ledger"].health is Health.BAD


def test_what_serve_refuses_is_bad(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    (ram_folder / "data").write_text("a file where the folder should be")
    (ram_folder / "token").write_text("short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = make_config(
            listener=_listener(taken.getsockname()[1]),
            control='{ port = 0, token_file = "token" }',
            log='{ file = "token/bridge.jsonl" }',
        )
        found = results(config)
    for key in ("data_folder", "listener.port", "control.token_file", "log.file"):
        assert found[key].health is Health.BAD, key
    assert "start" not in found


def test_a_network_disk_is_doubted(
    make_config: Callable[..., BridgeConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results(make_config())["disk"].health is Health.GOOD
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:40 / / rw - nfs4 filer:/ rw\n")
    monkeypatch.setattr(network_disk, "_MOUNTS", mounts)
    found = results(make_config())["disk"]
    assert (found.health, "nfs4" in found.detail) == (Health.DOUBT, True)


def test_a_worker_elsewhere_needs_the_bridges_folder_and_queue_and_no_port(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    queue = QueueConfig(url="postgresql://127.0.0.1:1/x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = make_config(listener=_listener(taken.getsockname()[1]))
        before = files(ram_folder)
        found = {each.subject: each for each in check_worker(config, queue)}
        assert files(ram_folder) == before
    assert found["queue default"].health is Health.BAD
    assert (found["data_folder"].health, "mounted" in found["data_folder"].detail) == (
        Health.BAD,
        True,
    )
    assert not {"listener.port", "destination archive", "ledger", "disk"} & set(found)

    config.data_folder.mkdir()
    made_identity(config.data_folder)
    found = {each.subject: each for each in check_worker(config, queue)}
    assert found["data_folder"].health is Health.GOOD
    assert [path.name for path in config.data_folder.iterdir()] == ["queue.id"]


def test_the_call_says_which_kind_of_machine_it_is(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    make_config()
    call = ["doctor", "--config", str(ram_folder / "bridge.toml")]
    elsewhere = CliRunner().invoke(
        main, [*call, "--queue", "postgresql://127.0.0.1:1/x", "--queue-name", "site"]
    )
    assert (elsewhere.exit_code, "queue site" in elsewhere.output) == (1, True)
    assert "destination archive" not in elsewhere.output
    assert CliRunner().invoke(main, [*call, "--queue-name", "site"]).exit_code == 2


def _listener(port: int) -> str:
    return f'{{ port = {port}, peers = [{{ ae_title = "*", addresses = ["127.0.0.1"] }}] }}'


def test_models_that_find_structures_are_looked_at_and_damaged_ones_named(
    make_config: Callable[..., BridgeConfig], tiny_models: Path, tmp_path: Path
) -> None:
    tiny, store = ModelStore(tiny_models).load("tiny"), ModelStore(tmp_path)
    for name, spacing_mm in (("fine", 1.5), ("coarse", 3.0)):
        manifest = replace(tiny.manifest, name=name, spacing_mm=spacing_mm)
        store.add(manifest, dict(tiny.state_dict))
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "manifest.json").write_text("{")

    def told(structures: str) -> dict[str, tuple[Health, str]]:
        config = make_config(
            models=f'{{ folder = "{tmp_path}" }}',
            routes=f'[{{ name = "all", model = "fine", destinations = ["archive"]{structures} }}]',
        )
        found = [one for one in check_up(config) if one.subject.startswith("model ")]
        return {one.subject: (one.health, one.detail) for one in found}

    assert list(told("")) == ["model fine"]
    wanted = told(', structures = ["liver"]')
    assert wanted["model coarse"][0] is Health.GOOD
    assert "finds structures for route all" in wanted["model coarse"][1]
    assert wanted["model another"][0] is Health.DOUBT
    assert "model-manifest" in wanted["model another"][1]
    (tmp_path / "coarse" / "weights.safetensors").write_bytes(b"damaged")
    health, detail = told(', structures = ["liver"]')["model coarse"]
    assert (health, "model-checksum" in detail) == (Health.BAD, True)
