"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pacs_bridge.config.listener import TransferSyntax
from pacs_bridge.receive import sop_classes
from pacs_bridge.receive.status import Status

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")


def _section(title: str) -> str:
    return TEXT.split(f"{title}\n", 1)[1].split("\n#", 1)[0]


def test_accepted_sop_classes_are_those_of_the_listener() -> None:
    table = _section("## What the listener accepts").split("With `own_results", 1)[0]

    documented = set(re.findall(r"\| (1\.2\.840\.[0-9.]+) \|", table))

    assert documented == {sop_classes.VERIFICATION, *sop_classes.IMAGES}


def test_transfer_syntaxes_stand_in_their_order_of_preference() -> None:
    table = _section("## What the listener accepts").split("Transfer syntaxes for images", 1)[1]

    documented = re.findall(r"\| (1\.2\.840\.[0-9.]+) \|", table)

    assert documented == [syntax.uid for syntax in TransferSyntax]


def test_statuses_are_those_that_the_listener_answers() -> None:
    table = _section("### Statuses of C-STORE responses")

    documented = {int(code, 16) for code in re.findall(r"\| ([0-9A-F]{4})H \|", table)}

    # The one that is missing answers messages that are no C-STORE.
    assert documented == {int(status) for status in Status} - {Status.UNRECOGNIZED_OPERATION}
