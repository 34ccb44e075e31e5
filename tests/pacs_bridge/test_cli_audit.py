"""``pacs-bridge audit``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from pacs_bridge.cli.main import main


@pytest.fixture
def audited(make_config, start_listener, send, make_ct, ram_folder):
    """Receive two instances; what the audit then says, and its exit status."""
    config = make_config()
    listener = start_listener(config)
    assert send(listener.port, [make_ct(number=1), make_ct(number=2)]) == [0, 0]
    listener.stop()

    def run(*options: str) -> tuple[int, str]:
        arguments = ["audit", "--config", str(ram_folder / "bridge.toml"), *options]
        result = CliRunner().invoke(main, arguments)
        return result.exit_code, result.stdout

    run.spool = config.spool_folder
    return run


def test_a_sound_data_folder_passes(audited) -> None:
    assert audited() == (0, "all invariants hold\n")
    status, said = audited("--json")
    nothing = {"faults": [], "leftovers": {"files": 0, "size_bytes": 0}}
    assert (status, json.loads(said)) == (0, nothing)


def test_what_is_wrong_is_listed_and_the_exit_status_says_so(audited) -> None:
    lost = next(audited.spool.glob("*/*.dcm"))
    lost.unlink()

    status, said = audited()
    assert status == 1
    assert said.endswith(f"{lost.name}  is missing\n")
    status, said = audited("--json")
    assert status == 1
    (fault,) = json.loads(said)["faults"]
    assert (fault["invariant"], fault["problem"]) == ("I1", "is missing")


def test_what_was_left_and_is_not_due_to_go_is_counted_and_no_fault(audited) -> None:
    (audited.spool / "00").mkdir(exist_ok=True)
    (audited.spool / "00" / "new.dcm").write_bytes(b"12345")

    status, said = audited()
    assert status == 0
    assert said.endswith("leftovers: 1 files, 5 bytes, which are not due to go yet\n")
    assert json.loads(audited("--json")[1])["leftovers"] == {"files": 1, "size_bytes": 5}


def test_a_service_that_has_never_run_cannot_be_audited(make_config, ram_folder) -> None:
    make_config()
    arguments = ["audit", "--config", str(ram_folder / "bridge.toml")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "has not run yet" in result.stderr
