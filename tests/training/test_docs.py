"""The commands that the documentation shows can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from training.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / "training.md", *sorted((ROOT / "docs" / "models").glob("*.md"))]
COMMANDS = [
    (page.name, found)
    for page in PAGES
    for found in re.findall(r"python -m training (\w[^`\n]*)", page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "text"), COMMANDS)
def test_a_documented_command_has_all_that_it_needs(page, text, tmp_path, monkeypatch):
    for folder in ("D", "DIR", "RAW", "STORE"):
        (tmp_path / folder).mkdir()
    for file in ("DIR/checkpoint.pt", "A", "B"):
        (tmp_path / file).touch()
    for folder in ("configs", "inference"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(text)

    context = main.commands[name].make_context(name, arguments)  # raises what a shell would show

    assert not context.args


def test_documentation_and_card_show_commands():
    assert {page for page, _ in COMMANDS} >= {"training.md", "synthetic-3mm.md"}
