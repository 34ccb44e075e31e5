"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from pacs_bridge.config.listener import TransferSyntax
from pacs_bridge.errors import TransientError
from pacs_bridge.receive import sop_classes
from pacs_bridge.receive.status import Status
from pacs_bridge.sources import dicomweb_status, dimse_status
from pacs_bridge.sources.dicomweb_retrieval import AS_STORED
from pacs_bridge.sources.find_scu import STUDY_ROOT_FIND
from pacs_bridge.sources.get_scu import STUDY_ROOT_GET
from pacs_bridge.sources.move_scu import STUDY_ROOT_MOVE

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


def test_information_models_are_those_of_the_fetcher() -> None:
    table = _section("## What the fetcher proposes")

    documented = set(re.findall(r"\| (1\.2\.840\.[0-9.]+) \|", table))

    assert documented == {STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE}


def test_statuses_of_a_retrieval_mean_what_the_fetcher_makes_of_them() -> None:
    table = _section("## What the fetcher proposes")

    rows = re.findall(r"^\| ([0-9A-Fx, H]+) \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) == 5
    for statuses, meaning in rows:
        for text in statuses.replace("xx", "00").split(", "):
            status = int(text.removesuffix("H").replace("x", "0").ljust(4, "0"), 16)
            if status in (*dimse_status.PENDING, dimse_status.SUCCESS, dimse_status.SOME_FAILED):
                continue
            error = dimse_status.refusal(status, "archive")
            assert f"`{error.reason}`" in meaning, text
            assert isinstance(error, TransientError) == ("later" in meaning), text


def test_statuses_of_http_mean_what_is_made_of_them() -> None:
    table = _section("## DICOMweb")

    rows = re.findall(r"^\| ([0-9, ]+) \| ([^|]+) \|", table, re.MULTILINE)
    assert len(rows) == 7
    for statuses, fetched in rows:
        for status in map(int, statuses.split(", ")):
            answer = SimpleNamespace(
                status=status, where="GET", wait_s=0.0, is_by_certificate=False
            )
            error = dicomweb_status.refusal(answer, is_renewable=True)
            is_later = isinstance(error, TransientError)
            assert is_later == ("again" in fetched), status
            assert is_later or f"`{error.reason}`" in fetched, status


def test_instances_are_asked_for_as_they_are_stored() -> None:
    assert AS_STORED in _section("## DICOMweb")
