"""The page of the installation: its commands are ours, and what they make fits together."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import click
import pytest

from pacs_bridge.cli.main import main
from pacs_bridge.config.load import load_config
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, State

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "installation.md"
#: What of a data folder is small and cannot be made again as it was.
KEPT = ("identity.key", "queue.id", "control.token")
UNIT = ROOT / "docker" / "examples" / "pacs-bridge.service"
PROGRAM = "/opt/pacs-bridge/bin/pacs-bridge"
DATA_FOLDER = "/var/lib/pacs-bridge"
CONFIG = "/etc/pacs-bridge/bridge.toml"
#: What a user who is not root cannot do, and what is checked elsewhere.
NOT_HERE = ("groupadd", "useradd", "systemctl", "journalctl", "/opt/pacs-bridge/bin/pip")


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]


def unit() -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser(strict=False, delimiters=["="])
    parsed.optionxform = str  # type: ignore[assignment]
    parsed.read_string(UNIT.read_text(encoding="utf-8"))
    return parsed


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def ours() -> list[list[str]]:
    """Calls of the program on the page and in the unit."""
    on_page = [words[words.index(PROGRAM) + 1 :] for words in commands() if PROGRAM in words]
    return [*on_page, shlex.split(unit()["Service"]["ExecStart"])[1:]]


def test_every_call_of_the_program_is_one_that_it_takes() -> None:
    assert {words[0] for words in ours()} == {"model", "doctor", "jobs", "serve"}
    for words in ours():
        with click.Context(main) as context:
            group, rest = main, words
            while isinstance(group, click.Group):
                name, *rest = rest
                found = group.get_command(context, name)
                assert found is not None, words
                group = found
            assert group.make_context(name, rest, parent=context)


def test_user_places_and_port_of_page_unit_and_image_are_the_same() -> None:
    (useradd,) = [words for words in commands() if words[0] == "useradd"]
    (groupadd,) = [words for words in commands() if words[0] == "groupadd"]
    service = unit()["Service"]
    image = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    ids = option(useradd, "--uid"), option(groupadd, "--gid")
    assert f"USER {ids[0]}:{ids[1]}\n" in image
    assert option(useradd, "--gid") == ids[1]
    assert (service["User"], service["Group"]) == (useradd[-1], groupadd[-1])
    assert option(useradd, "--home-dir") == service["ReadWritePaths"] == DATA_FOLDER
    assert unit()["Unit"]["RequiresMountsFor"] == DATA_FOLDER
    assert shlex.split(service["ExecStart"])[0] == PROGRAM
    assert option(shlex.split(service["ExecStart"]), "--config") == CONFIG


def test_the_unit_gives_a_drain_its_time_and_tells_the_supervisor_alone(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text((ROOT / "configs" / "bridge.toml").read_text(encoding="utf-8"))
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > load_config(config).listener.drain_timeout_s + 10
    assert (service["KillMode"], service["Restart"]) == ("mixed", "always")


def test_the_model_of_the_page_is_one_that_is_published() -> None:
    from inference.model_import import PUBLISHED_WEIGHTS

    known = {each.model_name for each in PUBLISHED_WEIGHTS}
    (fetch,) = [words for words in ours() if words[0] == "model"]
    (table,) = [tomllib.loads(re.sub("^ +", "", block, flags=re.M)) for block in blocks("toml")]
    assert fetch[-1] == table["routes"][0]["model"]
    assert fetch[-1] in known
    assert option(fetch, "--models") == table["models"]["folder"]


def test_pip_takes_what_is_locked_and_what_is_here_and_no_other_name() -> None:
    calls = [words[2:] for words in commands() if words[0] == "/opt/pacs-bridge/bin/pip"]
    assert all(call[-1] in ("requirements.lock", ".") for call in calls)
    assert all("--no-deps" in call for call in calls if call[-1] == ".")
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"pip install (\S+)`", text)) == {"pyarrow"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wheel,) = re.findall(r"wheels/(\S+\.whl)", text)
    assert wheel == f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Stands for /, with this environment's program in its place."""
    for folder in ("opt/pacs-bridge/bin", "etc/systemd/system", "var/lib", "var/backups"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("pacs-bridge", "python"):
        (tmp_path / "opt/pacs-bridge/bin" / name).write_text(
            f'#!/bin/sh\nexec "{sys.executable}" '
            f'{"-m pacs_bridge " if name == "pacs-bridge" else ""}"$@"\n'
        )
        (tmp_path / "opt/pacs-bridge/bin" / name).chmod(0o755)
    return tmp_path


def done_below(root: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Do a command of the page below another root, as the user who runs the tests."""
    if words[0] == "runuser":
        words = words[words.index("--") + 1 :]
    if words[0] == "install":
        owners = {i + n for i, word in enumerate(words) if word in ("-o", "-g") for n in (0, 1)}
        words = [word for i, word in enumerate(words) if i not in owners]
    moved = [re.sub(r"(?<![\w.])/(opt|etc|var)/", rf"{root}/\1/", word) for word in words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        moved, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_commands_of_the_page_lead_to_a_bridge_that_doctor_knows(root: Path) -> None:
    data_folder = root / "var/lib/pacs-bridge"
    ledger = None
    done = set()
    for words in commands():
        if words[0] in NOT_HERE or {"venv", "model", "--moved-here"} & set(words):
            continue
        ended = done_below(root, words)
        said = ended.stdout + ended.stderr
        done.add(words[0])
        if "doctor" not in words:
            assert ended.returncode == 0, (words, said)
            continue
        # nothing is wrong but that the site's PACS is not there
        bad = [line.split()[1:3] for line in said.splitlines() if line.startswith("bad")]
        assert bad == [["destination", "archive"]], said
        if ledger is None:
            assert not list(data_folder.iterdir())
            ledger = Ledger.open(data_folder / "ledger.sqlite")
            ledger.jobs.submit(JobRequest("1.2.3", 1, "r", "m", ("archive",)))
            for name in KEPT:
                (data_folder / name).write_text(name)
    assert done == {"install", "sed", "runuser", "find"}
    assert ledger is not None
    ledger.close()
    assert load_config(root / "etc/pacs-bridge/bridge.toml").data_folder == data_folder
    for name in ("ledger.sqlite", "before-upgrade.sqlite"):
        with closing(sqlite3.connect(root / "var/backups/pacs-bridge" / name)) as copy:
            assert copy.execute("SELECT state FROM jobs").fetchall() == [(State.READY,)]
    for name in KEPT:
        assert (root / "var/backups/pacs-bridge" / name).read_text() == name
        assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
