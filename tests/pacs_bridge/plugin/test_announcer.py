"""The bridge hears how many images a series has, whatever keeps it from hearing for a while."""

from __future__ import annotations

from typing import Any

import pytest

from pacs_bridge.plugin.announcer import Announced, Announcer
from pacs_bridge.plugin.bridge_client import BridgeAnswer, BridgeUnreachableError
from pacs_bridge.plugin.identity import Identity
from pacs_bridge.plugin.notes import Found, Note
from pacs_bridge.plugin.server import OrthancServer

CT = "1.2.840.10008.5.1.4.1.1.2"
ONE, TWO = "1" * 44, "2" * 44
HEARD = BridgeAnswer(200, {})
NOTHING = BridgeAnswer(404, {"reason": "unknown-series"})
OTHER = BridgeAnswer(409, {"reason": "other-patient"})
LATER = BridgeAnswer(503, {"reason": "ledger-unavailable"})
BROKEN = BridgeAnswer(500, {"reason": "internal-error"})


class Bridge:
    """Says what a test wants; None: nothing."""

    def __init__(self) -> None:
        self.said: BridgeAnswer | None = None
        self.heard: list[tuple[str, int]] = []
        self.backlog: list[str] = []
        self.faulty_uid = ""  #: its fault shows at this series

    def expect(self, identity: Identity, instance_count: int, is_backlog: bool) -> BridgeAnswer:
        self.heard.append((identity.series_uid, instance_count))
        if is_backlog:
            self.backlog.append(identity.series_uid)
        if identity.series_uid == self.faulty_uid:
            return BROKEN
        if self.said is None:
            raise BridgeUnreachableError("down")
        return self.said


def _note(series: str, instance_count: int, found: Found = Found.STABLE) -> Note:
    return Note(series, 0.0, instance_count=instance_count, found=found)


@pytest.fixture
def bridge() -> Bridge:
    return Bridge()


@pytest.fixture
def time_s() -> list[float]:
    return [0.0]


@pytest.fixture
def announcer(scripted: Any, bridge: Any, time_s: list[float]) -> Announcer:
    for series in (ONE, TWO):
        scripted.hold(series, [CT])
    return Announcer(OrthancServer(scripted), bridge, lambda: time_s[0])


def test_what_was_heard_is_not_said_again(announcer: Announcer, bridge: Bridge) -> None:
    bridge.said = HEARD
    assert announcer.announce(_note(ONE, 7)) is Announced.HEARD
    for _ in range(3):
        announcer.ensure(_note(ONE, 7))
        announcer.insist()
    assert bridge.heard == [("1.2.1", 7)]
    assert not announcer.is_insisting


def test_of_what_was_there_before_the_first_start_it_is_said_that_it_can_wait(
    announcer: Announcer, bridge: Bridge, time_s: list[float]
) -> None:
    announcer.announce(_note(ONE, 7, Found.EXISTING))
    announcer.announce(_note(TWO, 8, Found.UNSETTLED))
    announcer.transfer_ended(ONE, is_partial=True)
    bridge.said = HEARD
    announcer.insist()
    assert bridge.backlog == ["1.2.1"] * 2
    announcer.announce(_note(ONE, 7))  # somebody started it
    assert len(bridge.backlog) == 2


def test_two_series_at_once_are_each_told_once(announcer: Announcer, bridge: Bridge) -> None:
    bridge.said = HEARD
    for _ in range(3):
        announcer.ensure(_note(ONE, 7))
        announcer.ensure(_note(TWO, 8))
    assert bridge.heard == [("1.2.1", 7), ("1.2.2", 8)]


@pytest.mark.parametrize(
    "said", [None, NOTHING, LATER, BROKEN], ids=["down", "nothing", "busy", "broken"]
)
def test_while_it_is_sent_it_is_said_until_it_is_heard(
    announcer: Announcer, bridge: Bridge, said: BridgeAnswer | None
) -> None:
    bridge.said = said
    assert announcer.announce(_note(ONE, 7)) is not Announced.HEARD
    announcer.insist()
    assert announcer.is_insisting
    bridge.said = HEARD
    announcer.insist()
    announcer.insist()
    assert len(bridge.heard) == 3
    assert not announcer.is_insisting


@pytest.mark.parametrize("said", [None, LATER, BROKEN], ids=["down", "busy", "broken"])
def test_after_a_transfer_in_part_it_is_said_for_a_while(
    announcer: Announcer, bridge: Bridge, time_s: list[float], said: BridgeAnswer | None
) -> None:
    bridge.said = said
    announcer.announce(_note(ONE, 7))
    announcer.transfer_ended(ONE, is_partial=True)
    for _ in range(50):
        time_s[0] += 1.0
        announcer.insist()
    assert len(bridge.heard) == 51
    time_s[0] += 3600.0
    announcer.insist()
    assert (len(bridge.heard), announcer.is_insisting) == (51, False)


def test_after_a_transfer_of_nothing_or_of_all_nothing_is_said(
    announcer: Announcer, bridge: Bridge
) -> None:
    bridge.said = NOTHING
    announcer.announce(_note(ONE, 7))
    announcer.transfer_ended(ONE, is_partial=True)
    announcer.insist()  # nothing of it came, so there is nothing to be held
    announcer.announce(_note(TWO, 8))
    announcer.transfer_ended(TWO, is_partial=False)
    assert not announcer.is_insisting
    assert len(bridge.heard) == 3


def test_a_bridge_that_does_not_answer_is_asked_once_a_round_for_one_series_after_the_other(
    announcer: Announcer, bridge: Bridge
) -> None:
    announcer.announce(_note(ONE, 7))
    announcer.announce(_note(TWO, 8))
    bridge.heard.clear()
    for _ in range(4):
        announcer.insist()
    assert [uid for uid, _ in bridge.heard] == ["1.2.1", "1.2.2", "1.2.1", "1.2.2"]


def test_the_series_of_another_patient_is_told_of_and_not_insisted_on(
    announcer: Announcer, bridge: Bridge
) -> None:
    bridge.said = OTHER
    assert announcer.announce(_note(ONE, 7)) is Announced.OTHER_PATIENT
    assert not announcer.is_insisting


@pytest.mark.parametrize("status", [401, 502, 503, 504])
def test_a_silent_control_holds_every_series_for_a_minute(
    announcer: Announcer, bridge: Bridge, time_s: list[float], status: int
) -> None:
    bridge.said = BridgeAnswer(status, {})
    announcer.announce(_note(ONE, 7))
    assert announcer.holds(ONE)
    assert announcer.holds(TWO)
    for time_s[0] in range(5, 60, 5):
        announcer.insist()
    assert announcer.holds(TWO)
    time_s[0] = 60.0
    announcer.insist()
    assert not announcer.holds(TWO)


def test_a_control_that_is_silent_again_long_after_holds_series_for_a_minute_anew(
    announcer: Announcer, bridge: Bridge, time_s: list[float]
) -> None:
    announcer.announce(_note(ONE, 7))
    for time_s[0] in range(5, 95, 5):
        announcer.insist()
    assert not announcer.holds(ONE)
    announcer.transfer_ended(ONE, is_partial=False)  # it has arrived, and nothing is left to tell
    time_s[0] += 86_400.0
    announcer.announce(_note(TWO, 8))
    assert announcer.holds(TWO)
    time_s[0] += 59.0
    announcer.insist()
    assert announcer.holds(TWO)
    time_s[0] += 1.0
    announcer.insist()
    assert not announcer.holds(TWO)


def test_a_fault_at_one_series_holds_that_one_for_a_minute_and_no_other(
    announcer: Announcer, bridge: Bridge, time_s: list[float]
) -> None:
    bridge.said, bridge.faulty_uid = HEARD, "1.2.1"
    for time_s[0] in range(0, 60, 5):
        announcer.announce(_note(ONE, 7))
        announcer.insist()
        assert announcer.holds(ONE)
        assert not announcer.holds(TWO)
    time_s[0] = 60.0
    announcer.announce(_note(ONE, 7))
    assert not announcer.holds(ONE)
    assert announcer.is_insisting


def test_a_fault_at_one_series_neither_ends_nor_lengthens_the_silence_for_others(
    announcer: Announcer, bridge: Bridge, time_s: list[float]
) -> None:
    bridge.said, bridge.faulty_uid = LATER, "1.2.1"
    announcer.announce(_note(TWO, 8))
    announcer.announce(_note(ONE, 7))
    for time_s[0] in range(5, 60, 5):
        announcer.insist()
        assert announcer.holds(TWO)
    time_s[0] = 60.0
    announcer.insist()
    assert not announcer.holds(TWO)


def test_after_a_fault_at_one_series_the_others_are_told_in_the_same_round(
    announcer: Announcer, bridge: Bridge
) -> None:
    bridge.faulty_uid = "1.2.1"
    announcer.announce(_note(ONE, 7))
    announcer.announce(_note(TWO, 8))
    bridge.said = HEARD
    bridge.heard.clear()
    announcer.insist()
    assert [uid for uid, _ in bridge.heard] == ["1.2.1", "1.2.2"]


def test_without_control_nothing_is_said(scripted: Any) -> None:
    scripted.hold(ONE, [CT])
    announcer = Announcer(OrthancServer(scripted), None)
    assert announcer.announce(_note(ONE, 7)) is Announced.UNHEARD
    announcer.ensure(_note(ONE, 7))
    announcer.insist()
    assert not announcer.is_insisting
