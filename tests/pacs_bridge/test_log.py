"""The log: one line each, whatever comes in, and nothing of a patient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog, LogLevel
from pacs_bridge.queue import State
from pacs_bridge.receive.status import Status

CANARIES = ("Canary^Jane", "CANARY-PID", "19011231", "CANARY STREET 7")


@pytest.fixture
def log(tmp_path, clock):
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    yield JsonLog(descriptor, IdentityHash(b"key"), LogLevel.INFO, clock)
    os.close(descriptor)


@pytest.fixture
def lines(tmp_path):
    return lambda: [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]


def test_a_line_says_when_what_and_with_what(log, lines):
    log.info("series-ready", instances=397, route="all", seconds=1.5, reason=None)
    assert lines() == [
        {
            "time": "2026-03-01T12:00:00.000+00:00",
            "level": "info",
            "event": "series-ready",
            "instances": 397,
            "route": "all",
            "seconds": 1.5,
            "reason": None,
        }
    ]


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines",
        "a\rb",
        "nul\0",
        "\u2028",
        "\x1b[31m",
        '"}{"event": "forged"',
        "ü\ud800",
        "%s%n",
    ],
)
def test_whatever_comes_in_is_one_line(log, lines, text):
    log.info("association-rejected", calling=text)
    (line,) = lines()
    assert line["calling"] == text
    assert line["event"] == "association-rejected"


def test_identifiers_are_words_and_the_same_one_is_the_same_word(log, lines):
    for _ in range(2):
        log.info("x", series="1.2.840.113619.2.55", patient="PID-1")
    first, second = lines()
    assert first["series"] == second["series"]
    assert len(first["series"]) == 16
    assert "113619" not in str(first)
    assert "PID-1" not in str(first)


def test_a_uid_in_a_text_is_hidden_and_an_address_or_a_standard_uid_is_not(log, lines):
    log.info(
        "x", detail="1.2.840.113619.2.55.3.1 at 10.1.2.3 of 1.2.840.10008.5.1.4.1.1.2, 2.25.77"
    )
    (line,) = lines()
    assert "113619" not in line["detail"]
    assert "2.25.77" not in line["detail"]
    assert "10.1.2.3 of 1.2.840.10008.5.1.4.1.1.2" in line["detail"]


def test_another_key_gives_other_words():
    assert IdentityHash(b"a").word("x") != IdentityHash(b"b").word("x")


def test_the_key_is_made_once_and_for_the_owner_alone(tmp_path):
    first = IdentityHash.load(tmp_path)
    second = IdentityHash.load(tmp_path)
    assert first.of("x") == second.of("x")
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]


def test_an_error_is_told_by_type_and_place_and_not_by_its_message(log, lines):
    try:
        try:
            int("Canary^Jane")
        except ValueError as error:
            raise KeyError("CANARY-PID") from error
    except KeyError as error:
        log.fault("store-failed", error, series="1.2.3")
    (line,) = lines()
    assert line["error"].startswith("KeyError at test_log.py:")
    assert "ValueError at test_log.py:" in line["error"]
    assert not any(canary in str(line) for canary in CANARIES)


def test_lines_below_the_level_are_left_out(log, lines):
    log.debug("x")
    log.warning("y")
    assert [line["event"] for line in lines()] == ["y"]


def test_threads_do_not_mix_their_lines(log, lines):
    def write(name: str) -> None:
        for number in range(200):
            log.info("x", text=name * 300, number=number)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 800
    assert all(len(set(line["text"])) == 1 for line in lines())


def test_a_log_that_cannot_be_written_stops_nothing(clock):
    log = JsonLog(os.open("/dev/full", os.O_WRONLY), IdentityHash(b"k"), LogLevel.INFO, clock)
    log.error("x")


def test_what_would_go_to_standard_error_by_itself_is_logged_without_its_message():
    code = """
        import threading, warnings
        from pacs_bridge.identity_hash import IdentityHash
        from pacs_bridge.library_settings import apply_library_settings
        from pacs_bridge.log import JsonLog

        apply_library_settings()
        JsonLog.open(None, IdentityHash(b"k"), "debug").catch_strays()
        import logging
        logging.getLogger("pynetdicom").error("Canary^Jane")
        logging.getLogger("pydicom").warning("Canary^Jane")
        warnings.warn("Canary^Jane")
        thread = threading.Thread(target=lambda: int("CANARY-PID"))
        thread.start()
        thread.join()
        raise RuntimeError("CANARY STREET 7")
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    events = [json.loads(line)["event"] for line in told.stderr.splitlines()]
    assert told.returncode == 1
    assert events == ["library-warning", "uncaught", "uncaught"]
    assert not any(canary in told.stderr + told.stdout for canary in CANARIES)


def test_no_patient_is_in_what_a_listener_logs_and_keeps_beside_the_images(
    make_config, start_listener, send, make_ct, wait_for
):
    config = make_config()
    listener = start_listener(config)
    patient = {
        "PatientName": CANARIES[0],
        "PatientID": CANARIES[1],
        "PatientBirthDate": CANARIES[2],
        "PatientAddress": CANARIES[3],
    }
    good = make_ct(number=1, **patient)
    conflicting = make_ct(number=1, SeriesDescription=CANARIES[0], **patient)
    stranger = make_ct(number=2, PatientID="CANARY-PID-2")
    nobody = make_ct(number=3, PatientID="", PatientName=CANARIES[0])
    assert send(listener.port, [good, conflicting, stranger, nobody, good]) == [
        Status.SUCCESS,
        Status.DUPLICATE_SOP_INSTANCE,
        Status.MIXED_IDENTITY,
        Status.MISSING_IDENTITY,
        Status.SUCCESS,
    ]
    view = Ledger.open(config.ledger_path).view
    wait_for(lambda: [one.state for one in view.jobs()] == [State.INCOMPLETE])
    listener.stop(1.0)

    logged = (config.data_folder / "log.jsonl").read_text()
    assert "instance-not-kept" in logged
    assert good.SeriesInstanceUID not in logged
    assert good.SOPInstanceUID not in logged
    for path in config.data_folder.rglob("*"):
        if path.is_file() and path.suffix != ".dcm":
            kept = path.read_bytes()
            assert not any(canary.encode() in kept for canary in CANARIES), path.name
    assert not any(canary in logged for canary in CANARIES)
