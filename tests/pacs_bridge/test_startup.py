"""What is said before the service starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.startup import startup_faults


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
    for name in ("identity.key", "ledger.sqlite"):
        (config.data_folder / name).touch()
    assert faults_of(config) == {}

    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir() and real(path, mode))
    problems = [fault.problem for fault in startup_faults(config) if fault.key == "data_folder"]
    assert ["identity.key" in problems[0], "ledger.sqlite" in problems[1]] == [True, True]


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
