"""What is said before the service starts."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_bridge.checkup import Health, check_up
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.startup import startup_faults

NOBODY = 65534


def test_files_of_secrets_that_cannot_be_read_are_named_by_their_keys(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    (ram_folder / "token").write_text("t")
    config = make_config(
        destinations='[{ name = "archive", url = "https://pacs.example.org",'
        ' auth = { token_file = "token" }, tls = { ca_file = "gone.pem" } }]',
        sources='[{ name = "vna", kind = "dicomweb", url = "https://vna.example.org",'
        ' auth = { user = "u", password_file = "nowhere" } }]',
    )
    faults = {fault.key: fault.problem for fault in startup_faults(config)}
    assert set(faults) == {"destinations[0].tls.ca_file", "sources[0].auth.password_file"}
    assert "gone.pem" in faults["destinations[0].tls.ca_file"]


def faults_of(config: BridgeConfig) -> dict[str, str]:
    return {fault.key: fault.problem for fault in startup_faults(config)}


def test_a_place_that_this_user_may_not_write_is_named_and_nothing_made(
    make_config: Callable[..., BridgeConfig], ram_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(log='{ file = "log/bridge.jsonl" }', control="{ port = 0 }")
    assert faults_of(config) == {}
    assert not config.data_folder.exists()

    real = os.access  # whoever runs this may be root, who may do everything
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    faults = faults_of(config)
    assert set(faults) == {"data_folder", "log.file", "control.token_file"}
    assert all(f"cannot be made in {ram_folder}" in problem for problem in faults.values())
    assert str(os.geteuid()) in faults["data_folder"]


def test_files_of_another_user_in_the_data_folder_are_named(
    make_config: Callable[..., BridgeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    config.data_folder.mkdir()
    names = ("identity.key", "ledger.sqlite", "ledger.machine")
    for name in names:
        (config.data_folder / name).touch()
    assert faults_of(config) == {}

    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir() and real(path, mode))
    problems = [fault.problem for fault in startup_faults(config) if fault.key == "data_folder"]
    assert len(problems) == len(names)
    assert all(name in problem for name, problem in zip(names, problems, strict=True))


def as_another_user(call: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The answer of a process whose user folders without permissions shut out: root they do not.

    What it needs is imported before: another user may not read what the interpreter reads.
    """
    call()
    if os.geteuid() != 0:
        return call()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(call()).encode())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as answer:
        return dict(json.loads(answer.read()))


def test_a_file_in_a_folder_that_this_user_may_not_search_is_a_fault(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    shut = ram_folder / "shut"
    config = make_config(
        log='{ file = "shut/in/bridge.log" }',
        control='{ port = 0, token_file = "shut/token" }',
        models='{ folder = "shut/models" }',
    ).model_copy(update={"data_folder": shut / "data"})
    (shut / "in").mkdir(parents=True)
    (shut / "in" / "bridge.log").touch()
    shut.chmod(0)

    faults = as_another_user(lambda: faults_of(config))

    user = os.geteuid() or NOBODY
    assert faults["log.file"].endswith(f"bridge.log: cannot be written by user id {user}")
    assert faults["control.token_file"].endswith(f"token: cannot be read by user id {user}")
    assert {"data_folder", "models.folder"} <= set(faults)


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("auth.token_file", 'auth = { token_file = "TopSecret" }'),
        ("tls.key_file", 'tls = { certificate_file = "bridge.pem", key_file = "TopSecret" }'),
    ],
)
def test_a_file_of_a_secret_that_is_not_there_is_not_named_it_may_be_the_secret(
    make_config: Callable[..., BridgeConfig], key: str, table: str
) -> None:
    source = 'name = "vna", kind = "dicomweb", url = "https://vna.example.org"'
    config = make_config(sources=f"[{{ {source}, {table} }}]")
    faults = faults_of(config)
    assert "TopSecret" not in str(faults)
    assert faults[f"sources[0].{key}"].startswith("no file of this name")


def test_a_check_up_by_a_user_who_may_not_search_a_folder_says_so(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    shut = ram_folder / "shut"
    shut.mkdir()
    plans = '[{ name = "run", kind = "plan", folder = "shut/plans" }]'
    models = '{ folder = "shut/models" }'
    config = make_config(sources=plans, models=models).model_copy(
        update={"data_folder": shut / "data"}
    )
    shut.chmod(0)

    found = as_another_user(lambda: {each.subject: each.health for each in check_up(config)})

    subjects = ("data_folder", "models.folder", "model synthetic-3mm", "disk", "source run")
    assert {found[subject] for subject in subjects} == {Health.BAD}


def test_a_token_that_control_would_refuse_is_a_fault(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    (ram_folder / "token").write_text("short")
    config = make_config(control='{ port = 0, token_file = "token" }')
    assert "16 to 1024 characters" in faults_of(config)["control.token_file"]


def test_ports_of_a_service_that_runs_are_not_asked_for(
    make_config: Callable[..., BridgeConfig],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        peers = '[{ ae_title = "*", addresses = ["127.0.0.1"] }]'
        port = taken.getsockname()[1]
        config = make_config(listener=f"{{ port = {port}, peers = {peers} }}")
        assert list(faults_of(config)) == ["listener.port"]
        assert startup_faults(config, is_running=True) == ()
