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


class Bridge:
    """Says what a test wants; None: nothing."""

    def __init__(self) -> None:
        self.said: BridgeAnswer | None = None
        self.heard: list[tuple[str, int]] = []
        self.backlog: list[str] = []

    def expect(self, identity: Identity, instance_count: int, is_backlog: bool) -> BridgeAnswer:
        self.heard.append((identity.series_uid, instance_count))
        if is_backlog:
            self.backlog.append(identity.series_uid)
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


@pytest.mark.parametrize("said", [None, NOTHING, LATER], ids=["down", "nothing yet", "busy"])
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


@pytest.mark.parametrize("said", [None, LATER], ids=["down", "busy"])
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


def test_without_control_nothing_is_said(scripted: Any) -> None:
    scripted.hold(ONE, [CT])
    announcer = Announcer(OrthancServer(scripted), None)
    assert announcer.announce(_note(ONE, 7)) is Announced.UNHEARD
    announcer.ensure(_note(ONE, 7))
    announcer.insist()
    assert not announcer.is_insisting
