"""Sending: what an Orthanc that misbehaves cannot bring about."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.plugin.announcer import Announcer
from pacs_bridge.plugin.bridge_client import (
    BridgeAnswer,
    BridgeUnreachableError,
    UnaskableError,
)
from pacs_bridge.plugin.carrier import Carrier
from pacs_bridge.plugin.identity import Identity
from pacs_bridge.plugin.notes import Found, Note, NoteBook, Place, Stage
from pacs_bridge.plugin.server import LeavingError, OrthancServer
from pacs_bridge.plugin.settings import Settings
from pacs_bridge.plugin.store_jobs import CarrierFault

CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SERIES = "0" * 44


@pytest.fixture
def carrier(scripted: Any, notes: NoteBook, time_s: list[float]) -> Carrier:
    settings = Settings("bridge", Path("unused"), 60.0, give_up_after_h=1.0, stores_at_once=2)
    server = OrthancServer(scripted)
    announcer = Announcer(server, None)
    return Carrier(server, notes, settings, announcer, lambda: 1000.0, lambda: time_s[0])


def test_only_ct_images_of_a_mixed_series_are_sent(scripted, notes, carrier) -> None:
    scripted.hold(SERIES, [CT, SEG, CT])
    notes.add(SERIES, 1000.0)
    carrier.look()
    ((uri, body),) = scripted.posted
    assert uri == "/modalities/bridge/store"
    assert body["Resources"] == [f"{SERIES}-0", f"{SERIES}-2"]
    assert (body["Synchronous"], body["Permissive"]) == (False, False)
    assert body["Priority"] < 0  # jobs of others go first


def test_a_series_that_calls_itself_ct_and_holds_none_is_no_error(scripted, notes, carrier) -> None:
    scripted.hold(SERIES, [SEG, SEG])
    notes.add(SERIES, 1000.0)
    carrier.look()
    assert scripted.posted == []
    assert notes.all() == ()
    (line,) = scripted.lines
    assert "no instance is a CT image" in line


def test_a_series_that_was_deleted_is_told_counted_and_forgotten(scripted, notes, carrier) -> None:
    notes.add(SERIES, 1000.0)
    carrier.look()
    assert notes.all() == ()
    assert carrier.deleted_count == 1
    assert "deleted before it was sent" in scripted.lines[0]


def test_a_job_that_orthanc_forgets_at_once_is_known_by_its_event(scripted, notes, carrier) -> None:
    scripted.hold(SERIES, [CT])
    notes.add(SERIES, 1000.0)
    carrier.look()
    carrier.job_ended("job1", True)
    carrier.look()
    assert notes.all() == ()
    assert len(scripted.posted) == 1


REFUSED = {"State": "Failure", "ErrorDetails": "C-STORE has failed with DIMSE status 0x0111"}
DONE = {"State": "Success", "Content": {"InstancesCount": 3, "FailedInstancesCount": 0}}


def test_a_refused_instance_does_not_keep_the_others_and_ends_it_when_refused_again(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT, CT, CT])
    scripted.answers |= {"/jobs/job1": REFUSED, "/jobs/job2": DONE, "/jobs/job3": REFUSED}
    notes.add(SERIES, 1000.0)
    for _ in range(8):
        carrier.look()
        time_s[0] += 60.0
    assert [body["Permissive"] for _, body in scripted.posted] == [False, True, False]
    note = notes.get(SERIES)
    assert (note.stage, note.reason) == (Stage.FAILED, CarrierFault.PARTIAL)
    assert "0x0111" in note.detail


def test_what_was_refused_and_is_taken_later_has_arrived(scripted, notes, carrier, time_s) -> None:
    scripted.hold(SERIES, [CT, CT, CT])
    scripted.answers |= {"/jobs/job1": REFUSED, "/jobs/job2": DONE, "/jobs/job3": DONE}
    notes.add(SERIES, 1000.0)
    for _ in range(8):
        carrier.look()
        time_s[0] += 60.0
    assert notes.all() == ()
    assert len(scripted.posted) == 3


class Bridge:
    """Says what it has of every series; None: nothing."""

    def __init__(self, answer: BridgeAnswer | None) -> None:
        self.answer = answer
        self.is_silent = False
        self.expected: list[int] = []

    def series(self, identity: Identity) -> BridgeAnswer:
        if self.answer is None:
            raise BridgeUnreachableError("down")
        return self.answer

    def expect(self, identity: Identity, instance_count: int, is_backlog: bool) -> BridgeAnswer:
        self.expected.append(instance_count)
        if self.is_silent:
            raise BridgeUnreachableError("down")
        return BridgeAnswer(200, {})


@pytest.fixture
def bridge() -> Bridge:
    return Bridge(BridgeAnswer(200, {"instance_count": 1, "owed_count": 1}))


@pytest.fixture
def asking(scripted: Any, notes: NoteBook, time_s: list[float], bridge: Any) -> Carrier:
    """A carrier that can ask the bridge; each permissive job ends well, and no other."""
    scripted.hold(SERIES, [CT, CT, CT])
    scripted.answers |= {
        f"/jobs/job{number}": REFUSED if number % 2 else DONE for number in range(1, 60)
    }
    notes.add(SERIES, 1000.0)
    server = OrthancServer(scripted)
    settings = Settings("bridge", Path("unused"), 60.0)
    announcer = Announcer(server, bridge, lambda: time_s[0])
    return Carrier(server, notes, settings, announcer, lambda: 1000.0, lambda: time_s[0])


def _look_for_long(carrier: Carrier, time_s: list[float], looks: int) -> None:
    for _ in range(looks):
        carrier.look()
        time_s[0] += 600.0


def test_others_that_the_bridge_lost_with_a_permissive_job_are_sent_again(
    scripted, notes, asking, time_s, bridge
) -> None:
    _look_for_long(asking, time_s, 6)
    assert [body["Permissive"] for _, body in scripted.posted] == [False, True, False]
    note = notes.get(SERIES)
    assert (note.stage, note.reason) == (Stage.WAITING, CarrierFault.PARTIAL)
    bridge.answer = BridgeAnswer(200, {"instance_count": 2, "owed_count": 1})
    _look_for_long(asking, time_s, 8)
    assert [body["Permissive"] for _, body in scripted.posted] == [False, True, False, True, False]
    note = notes.get(SERIES)
    assert (note.stage, note.reason) == (Stage.FAILED, CarrierFault.PARTIAL)


def test_others_that_come_in_parts_are_sent_as_long_as_more_of_them_come(
    scripted, notes, asking, time_s, bridge
) -> None:
    scripted.hold(SERIES, [CT] * 30)
    for count in range(12):
        bridge.answer = BridgeAnswer(200, {"instance_count": count, "owed_count": 1})
        _look_for_long(asking, time_s, 4)
    assert notes.get(SERIES).stage is not Stage.FAILED


@pytest.mark.parametrize(
    "answer",
    [
        None,
        BridgeAnswer(404, {"reason": "unknown-series"}),
        BridgeAnswer(401, {"reason": "token"}),
        BridgeAnswer(200, {"instance_count": 1, "owed_count": 1}),
        BridgeAnswer(200, {"instance_count": "many"}),
    ],
    ids=["down", "nothing there", "no token", "never more", "nonsense"],
)
def test_a_bridge_that_never_has_more_is_sent_the_others_a_few_times_and_not_for_ever(
    scripted, notes, asking, time_s, bridge, answer
) -> None:
    bridge.answer = answer
    _look_for_long(asking, time_s, 40)
    note = notes.get(SERIES)
    assert (note.stage, note.reason) == (Stage.FAILED, CarrierFault.PARTIAL)
    assert 3 < len(scripted.posted) < 15


def test_what_an_operator_vouched_for_is_not_sent_again(
    scripted, notes, asking, time_s, bridge
) -> None:
    while len(scripted.posted) < 3:
        _look_for_long(asking, time_s, 1)
    notes.force(SERIES)
    _look_for_long(asking, time_s, 4)
    assert len(scripted.posted) == 3
    assert notes.get(SERIES).stage is Stage.FAILED


@pytest.mark.parametrize(
    "details",
    [
        "Connection refused",
        "C-STORE has failed with DIMSE status 0xA700",
        "C-STORE has failed with DIMSE status 0x0110",
    ],
)
def test_a_bridge_that_is_down_or_full_is_not_asked_for_every_instance(
    scripted, notes, carrier, time_s, details
) -> None:
    scripted.hold(SERIES, [CT, CT])
    scripted.answers["/jobs/job1"] = {"State": "Failure", "ErrorDetails": details}
    notes.add(SERIES, 1000.0)
    for _ in range(3):
        carrier.look()
        time_s[0] += 60.0
    assert [body["Permissive"] for _, body in scripted.posted] == [False, False]


def test_a_fault_of_the_bridge_itself_ends_nothing_and_is_over_when_it_is_mended(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT, CT, CT])
    fault = {"State": "Failure", "ErrorDetails": "C-STORE has failed with DIMSE status 0x0110"}
    scripted.answers |= {f"/jobs/job{number}": fault for number in (1, 2, 3)}
    scripted.answers["/jobs/job4"] = DONE
    notes.add(SERIES, 1000.0)
    for _ in range(10):
        carrier.look()
        time_s[0] += 60.0
    assert [body["Permissive"] for _, body in scripted.posted] == [False] * 4
    assert notes.all() == ()


def test_a_job_that_vanished_is_done_again_with_growing_waits(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT])
    notes.add(SERIES, 1000.0)
    sent_at = []
    for _ in range(200):
        count = len(scripted.posted)
        carrier.look()
        if len(scripted.posted) > count:
            sent_at.append(time_s[0])
        time_s[0] += 1.0
    waits = [later - earlier for earlier, later in pairwise(sent_at)]
    assert waits == sorted(waits)
    assert waits[0] >= 5
    assert waits[-1] >= 4 * waits[0]


def test_what_fails_for_too_long_is_given_up_with_its_reason_and_can_be_started_again(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT])
    scripted.refuses = True
    notes.add(SERIES, 1000.0)
    for _ in range(20):
        carrier.look()
        time_s[0] += 600.0
    note = notes.get(SERIES)
    assert (note.stage, note.reason) == (Stage.FAILED, CarrierFault.REFUSED)
    assert carrier.next_due_s() is None

    scripted.refuses = False
    notes.add(SERIES, time_s[0])
    carrier.look()
    assert len(scripted.posted) == 1


def test_the_time_of_day_may_step_and_nothing_is_late_or_given_up_for_it(
    scripted, notes, time_s
) -> None:
    scripted.hold(SERIES, [CT])
    server = OrthancServer(scripted)
    day_s = [1.7e9]
    settings = Settings("bridge", Path("unused"), 60.0, give_up_after_h=1.0)
    announcer = Announcer(server, None)
    carrier = Carrier(server, notes, settings, announcer, lambda: day_s[0], lambda: time_s[0])
    notes.add(SERIES, day_s[0])
    for day_s[0] in (1.7e9, 0.0, 4e9, 1.7e9):
        carrier.look()  # sent; the next look finds that Orthanc does not know the job
        carrier.look()
        assert notes.get(SERIES).stage is Stage.WAITING
        time_s[0] += 60.0
    assert len(scripted.posted) == 4


def test_what_waits_is_tried_at_once_after_a_start_and_counts_on(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT])
    scripted.refuses = True
    notes.add(SERIES, 1000.0)
    for _ in range(5):
        carrier.look()
        time_s[0] += 600.0
    note = notes.get(SERIES)
    assert note.waited_s == 4 * 600.0
    server = OrthancServer(scripted)
    settings = Settings("bridge", Path("unused"), 60.0, give_up_after_h=1.0)
    again = Carrier(server, notes, settings, Announcer(server, None), lambda: 0.0, lambda: 1.0)
    again.look()
    assert notes.get(SERIES).attempts == note.attempts + 1
    assert notes.get(SERIES).waited_s == note.waited_s


def test_a_job_that_somebody_pauses_keeps_no_other_waiting(scripted, notes, carrier) -> None:
    for number in range(3):
        series = f"{number}" * 44
        scripted.hold(series, [CT])
        scripted.answers[f"/jobs/job{number + 1}"] = {"State": "Paused"}
        notes.add(series, 1000.0)
    carrier.look()
    assert len(scripted.posted) == 2
    carrier.look()
    assert len(scripted.posted) == 3


def test_what_became_stable_again_before_it_was_given_up_is_sent_again(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT, CT, CT])
    scripted.answers |= {"/jobs/job1": REFUSED, "/jobs/job2": DONE, "/jobs/job3": REFUSED}
    notes.add(SERIES, 1000.0)
    while len(scripted.posted) < 3:
        carrier.look()
        time_s[0] += 60.0
    notes.advance(
        Place(1, 0), [SERIES], 2000.0
    )  # late slices, while the last of these jobs goes on
    carrier.look()
    carrier.look()
    assert len(scripted.posted) == 4


def test_what_was_given_up_and_deleted_since_is_forgotten(scripted, notes, carrier) -> None:
    scripted.hold(SERIES, [CT])
    gone = "1" * 44
    for series in (SERIES, gone):
        notes.put(Note(series, 1000.0, Stage.FAILED))
    notes.put(Note("2" * 44, 1000.0))
    carrier.forget_gone()
    assert [note.series for note in notes.all()] == [SERIES, "2" * 44]


def test_orthancs_end_is_not_held_up_by_a_series_of_many_images(
    scripted, notes, carrier, time_s, monkeypatch
) -> None:
    scripted.hold(SERIES, [CT] * 500)
    notes.add(SERIES, 1000.0)
    ask = scripted.RestApiGet

    def end_at_the_third_image(uri: str) -> bytes:
        if uri == f"/instances/{SERIES}-2/metadata/SopClassUid":
            carrier._server.leave()
        return ask(uri)

    monkeypatch.setattr(scripted, "RestApiGet", end_at_the_third_image)
    with pytest.raises(LeavingError):
        carrier.look()
    assert scripted.asked[-1] == f"/instances/{SERIES}-2/metadata/SopClassUid"
    assert notes.all() == (Note(SERIES, 1000.0),)
    assert scripted.posted == []


def test_no_more_series_than_wanted_are_sent_at_once(scripted, notes, carrier) -> None:
    for number in range(5):
        series = f"{number}" * 44
        scripted.hold(series, [CT])
        scripted.answers[f"/jobs/job{number + 1}"] = {"State": "Running"}
        notes.add(series, 1000.0)
    carrier.look()
    assert len(scripted.posted) == 2
    carrier.look()
    assert len(scripted.posted) == 2
    scripted.answers["/jobs/job1"] = {"State": "Success"}
    carrier.look()
    assert len(scripted.posted) == 3


def test_what_was_being_sent_and_not_stable_when_orthanc_ended_is_given_that_time_too(
    scripted, notes, carrier, time_s
) -> None:
    scripted.hold(SERIES, [CT])
    notes.put(Note(SERIES, 1000.0, Stage.SENDING, job="lost"))
    notes.advance(Place(1, 0), [SERIES], 1000.0, Found.UNSETTLED)
    for time_s[0] in (1000.0, 1059.0):
        carrier.look()
    assert scripted.posted == []
    time_s[0] = 1060.0
    carrier.look()
    assert len(scripted.posted) == 1


def test_no_image_goes_out_before_the_bridge_has_heard_how_many_there_are(
    scripted, notes, asking, time_s, bridge
) -> None:
    bridge.is_silent = True
    scripted.hold("1" * 44, [CT])
    notes.add("1" * 44, 1000.0)
    for _ in range(10):
        asking.look()
        time_s[0] += 5.0
    assert scripted.posted == []
    assert len(bridge.expected) == 10  # once a look, though two series wait
    assert notes.get(SERIES).reason == CarrierFault.UNTOLD
    assert asking.next_due_s() <= time_s[0]

    bridge.is_silent = False
    asking.look()
    assert len(scripted.posted) == 1
    assert bridge.expected[-1] == 3


def test_a_control_that_stays_silent_holds_series_up_for_a_minute_and_not_for_ever(
    scripted, notes, asking, time_s, bridge
) -> None:
    bridge.is_silent = True
    asking.look()
    time_s[0] += 59.0
    asking.look()
    assert scripted.posted == []
    time_s[0] += 1.0
    asking.look()
    assert len(scripted.posted) == 1


def test_a_series_at_which_the_control_has_a_fault_waits_a_minute_while_others_are_sent(
    scripted, notes, asking, time_s, bridge, monkeypatch
) -> None:
    def expect(identity: Identity, *_said: object) -> BridgeAnswer:
        return BridgeAnswer(500 if identity.series_uid == "1.2.0" else 200, {})

    monkeypatch.setattr(bridge, "expect", expect)
    for number in range(1, 4):
        scripted.hold(f"{number}" * 44, [CT])
        notes.add(f"{number}" * 44, 1000.0)
        scripted.answers[f"/jobs/job{number}"] = {"State": "Success"}
    for _ in range(10):
        asking.look()
        time_s[0] += 5.0
    sent = [body["Resources"] for _, body in scripted.posted]
    assert sent == [["1" * 44], ["2" * 44], ["3" * 44]]
    assert notes.get(SERIES).reason == CarrierFault.UNTOLD
    time_s[0] += 10.0
    asking.look()
    assert scripted.posted[-1][1]["Resources"] == [SERIES]


def test_what_an_operator_vouched_for_waits_for_no_control(
    scripted, notes, asking, time_s, bridge
) -> None:
    bridge.is_silent = True
    asking.look()
    notes.force(SERIES)
    asking.look()
    assert len(scripted.posted) == 1


def test_a_series_that_cannot_be_told_to_the_bridge_holds_no_other_up(
    scripted, notes, asking, bridge
) -> None:
    def expect(identity: Identity, *_said: object) -> BridgeAnswer:
        if identity.series_uid == "1.2.0":
            raise UnaskableError("it has no UID")
        return BridgeAnswer(200, {})

    bridge.expect = expect
    scripted.hold("1" * 44, [CT])
    notes.add("1" * 44, 1000.0)
    scripted.answers["/jobs/job1"] = {"State": "Success"}
    asking.look()
    asking.look()
    assert [body["Resources"] for _, body in scripted.posted] == [[SERIES], ["1" * 44]]


def test_what_was_there_before_is_not_sent_while_nobody_wants_it_any_more(
    scripted, notes, time_s
) -> None:
    scripted.hold(SERIES, [CT])
    notes.advance(Place(1, 0), [SERIES], 1000.0, Found.EXISTING)
    server = OrthancServer(scripted)

    def carrier_of(existing_series: bool) -> Carrier:
        settings = Settings("bridge", Path("unused"), 60.0, existing_series=existing_series)
        announcer = Announcer(server, None)
        return Carrier(server, notes, settings, announcer, lambda: 1000.0, lambda: time_s[0])

    unwanted = carrier_of(existing_series=False)
    unwanted.look()
    assert scripted.posted == []
    assert unwanted.next_due_s() is None
    wanted = carrier_of(existing_series=True)
    wanted.look()
    assert len(scripted.posted) == 1
    scripted.answers["/jobs/job1"] = {"State": "Failure", "ErrorDescription": "gone"}
    wanted.look()
    again = carrier_of(existing_series=False)  # a part of it may be at the bridge
    again.look()
    assert len(scripted.posted) == 2


def test_somebody_who_starts_an_unsettled_series_does_not_wait(scripted, notes, carrier) -> None:
    scripted.hold(SERIES, [CT])
    notes.advance(Place(1, 0), [SERIES], 1000.0, Found.UNSETTLED)
    carrier.look()
    assert scripted.posted == []
    notes.add(SERIES, 1001.0)
    carrier.look()
    assert len(scripted.posted) == 1
