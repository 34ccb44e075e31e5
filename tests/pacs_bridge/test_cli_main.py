"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from pacs_bridge.cli.main import main


@pytest.mark.parametrize(
    "module",
    [
        "pacs_bridge.cli.main",
        "pacs_bridge.startup",
        "pacs_bridge.supervisor",
        "pacs_bridge.deliver.service",
        "pacs_bridge.receive.service",
        "pacs_bridge.demo_archive",
    ],
)
def test_service_processes_without_a_model_start_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout.startswith("pacs-bridge, version ")


def test_a_configuration_that_is_not_there_is_a_wrong_call(tmp_path) -> None:
    for command in ("serve", "doctor", "jobs", "work"):
        result = CliRunner().invoke(main, [command, "--config", str(tmp_path / "none.toml")])
        assert result.exit_code == 2
        assert "none.toml" in result.stderr
