"""Control as the process that ``serve`` starts."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from pacs_bridge.cli.main import main
from pacs_bridge.startup import child_specs, startup_faults


def test_control_answers_until_it_is_told_to_leave(make_config, tmp_path: Path) -> None:
    config = make_config(tmp_path, control="{ port = 0 }")
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "pacs_bridge", "control", "--config", tmp_path / "bridge.toml"]
    process = subprocess.Popen(
        [*command, "--ready-fd", str(write_end)], pass_fds=[write_end], stderr=subprocess.PIPE
    )
    os.close(write_end)
    with os.fdopen(read_end) as said:
        port = int(said.readline())
    token = (tmp_path / "data" / "control.token").read_text().strip()
    assert stat.S_IMODE((tmp_path / "data" / "control.token").stat().st_mode) == 0o600
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as web:
        assert web.get("/health").status_code == 200
        assert web.get("/status").status_code == 401
        status = web.get("/status", headers={"Authorization": f"Bearer {token}"})
        assert status.json() == {"waiting": 0, "states": {}, "instances": {}}
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert token not in errors.decode()
    assert config.control is not None


def test_control_runs_only_where_it_is_configured(make_config, tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    without = make_config(tmp_path)
    assert "control" not in [spec.name for spec in child_specs(without, path)]
    result = CliRunner().invoke(main, ["control", "--config", str(path)])
    assert (result.exit_code, "no table [control]" in result.stderr) == (2, True)

    config = make_config(tmp_path, control="{ port = 0 }")
    assert "control" in [spec.name for spec in child_specs(config, path)]


def test_a_port_that_is_taken_is_said_before_the_service_starts(make_config) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = make_config(control=f"{{ port = {taken.getsockname()[1]} }}")
        (fault,) = startup_faults(config)
    assert fault.key == "control.port"
    assert "cannot listen" in fault.problem


@pytest.mark.parametrize("table", ['{ bind = "localhost" }', "{ colour = 1 }", "{ port = 70000 }"])
def test_what_is_wrong_in_the_table_is_said(make_config, table: str) -> None:
    from pacs_bridge.config.load import ConfigError

    with pytest.raises(ConfigError, match="control"):
        make_config(control=table)
