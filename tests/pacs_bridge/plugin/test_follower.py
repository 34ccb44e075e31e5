"""Following Orthanc's log of changes: however long it is, and whatever of the notes is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.plugin.announcer import Announcer
from pacs_bridge.plugin.carrier import Carrier
from pacs_bridge.plugin.follower import Follower
from pacs_bridge.plugin.notes import Found, NoteBook, Place, Stage
from pacs_bridge.plugin.server import LeavingError, OrthancServer, ServerError
from pacs_bridge.plugin.settings import Settings
from pacs_bridge.plugin.store_jobs import CarrierFault

CT = "1.2.840.10008.5.1.4.1.1.2"
SERIES, OTHER = "0" * 44, "1" * 44
Follow = Callable[..., Follower]


@pytest.fixture
def follower_of(scripted: Any, time_s: list[float]) -> Follow:
    """A follower of the scripted Orthanc, with its notes and settings."""

    def make(notes: NoteBook, **settings: Any) -> Follower:
        made = Settings("bridge", Path("unused"), 60.0, **settings)
        return Follower(OrthancServer(scripted), notes, made, lambda: 1000.0, lambda: time_s[0])

    return make


@pytest.fixture
def carrier(scripted: Any, notes: NoteBook, time_s: list[float]) -> Carrier:
    settings = Settings("bridge", Path("unused"), 60.0)
    server = OrthancServer(scripted)
    announcer = Announcer(server, None)
    return Carrier(server, notes, settings, announcer, lambda: 1000.0, lambda: time_s[0])


def _hold(scripted: Any, count: int, first: int = 0) -> list[str]:
    """Series that became stable, each with an instance."""
    ids = [f"{number:044}" for number in range(first, first + count)]
    for one in ids:
        scripted.hold(one, [CT])
        scripted.happen("NewInstance", f"{one}-0")
        scripted.happen("StableSeries", one)
    return ids


def _follow(follower: Follower, most: int = 1000) -> int:
    """How many steps it takes until there is nothing more to read."""
    for number in range(1, most + 1):
        if not follower.follow():
            return number
    raise AssertionError("there is always more")


def _begun(follower: Follower) -> Follower:
    follower.begin()
    return follower


# --- a long log ---


def test_what_is_found_in_a_long_log_is_sent_while_it_is_read(
    scripted, notes, follower_of, carrier
) -> None:
    notes.begin_at(0)
    ids = _hold(scripted, 450)
    follower = _begun(follower_of(notes))

    assert follower.follow()
    carrier.look()

    assert [body["Resources"] for _, body in scripted.posted] == [[ids[0]]]
    assert len(notes.all()) == 100  # of a batch, and no more
    assert _follow(follower) > 3
    assert len(notes.all()) == 450


def test_where_reading_a_long_log_stood_is_known_after_a_new_start(
    scripted, ram_folder, follower_of
) -> None:
    NoteBook(ram_folder / "notes").begin_at(0)
    ids = _hold(scripted, 450)
    for _ in range(20):  # Orthanc is killed again and again
        notes = NoteBook(ram_folder / "notes")
        follower = _begun(follower_of(notes))
        follower.follow()
        follower.follow()
    assert [note.series for note in notes.all()] == ids
    assert notes.place.position == scripted.changes[-1]["Seq"]


def test_the_search_for_what_was_unsettled_keeps_only_that_and_its_progress(
    scripted, ram_folder, follower_of, time_s
) -> None:
    NoteBook(ram_folder / "notes").begin_at(0)
    _hold(scripted, 600)
    scripted.hold(OTHER, [CT])
    unsettled = scripted.happen("NewInstance", f"{OTHER}-0")
    _hold(scripted, 600, first=2000)
    notes = NoteBook(ram_folder / "notes")
    follower = _begun(follower_of(notes))
    floors, kept = [], []
    while follower.follow():
        floors.append(notes.place.floor)
        kept.append(len(follower._search.found()) if follower._search else 0)
    assert floors == sorted(floors)
    assert floors[-1] == unsettled - 1  # after a kill it goes on here, and not from the beginning
    assert max(kept) <= 2
    assert notes.place.floor == scripted.changes[-1]["Seq"]
    assert notes.get(OTHER).found is Found.UNSETTLED


def test_what_is_new_goes_before_the_search_and_both_before_what_was_there(
    scripted, notes, follower_of
) -> None:
    _hold(scripted, 300)
    _begun(follower_of(notes, existing_series=True))
    scripted.hold(OTHER, [CT])
    scripted.happen("NewInstance", f"{OTHER}-0")
    (new,) = _hold(scripted, 1, first=5000)
    again = _begun(follower_of(notes, existing_series=True))
    order: list[str] = []
    while again.follow():
        order += [note.series for note in notes.all() if note.series not in order]
    assert order[:2] == [new, OTHER]
    assert len(notes.all()) == 302


def test_of_a_large_store_only_some_series_are_noted_before_they_are_sent(
    scripted, notes, follower_of
) -> None:
    ids = _hold(scripted, 1500)
    follower = _begun(follower_of(notes, existing_series=True))
    _follow(follower)
    assert 500 <= len(notes.all()) < 700
    sent = []
    while notes.all():
        for note in notes.all():
            sent.append(note.series)
            notes.settle(note.series, 1000.0)
        _follow(follower)
    assert sent == ids


def test_what_was_there_is_read_no_further_while_it_is_not_wanted_and_then_from_there_on(
    scripted, ram_folder, follower_of
) -> None:
    path = ram_folder / "notes"
    ids = _hold(scripted, 250)
    notes = NoteBook(path)
    _begun(follower_of(notes, existing_series=True)).follow()
    read = notes.place.existing
    assert 0 < read < notes.place.existing_end

    notes = NoteBook(path)
    _follow(_begun(follower_of(notes)))
    assert notes.place.existing == read

    notes = NoteBook(path)
    _follow(_begun(follower_of(notes, existing_series=True)))
    assert [note.series for note in notes.all()] == ids


def test_what_is_clear_is_noted_though_orthanc_cannot_speak_of_too_much_to_read_on(
    scripted, notes, follower_of, monkeypatch
) -> None:
    monkeypatch.setattr("pacs_bridge.plugin.unsettled._MAX_UNCLEAR", 200)
    notes.begin_at(0)
    scripted.hold(SERIES, [CT])
    scripted.happen("NewInstance", f"{SERIES}-0")
    for number in range(500):
        scripted.answers[f"/instances/{number}/series"] = "no JSON"
        scripted.happen("NewInstance", f"{number}")
    follower = _begun(follower_of(notes))

    _follow(follower)

    assert not follower._search.has_read_all
    assert [note.series for note in notes.all()] == [SERIES]
    assert notes.place.floor == 1


def test_what_was_there_and_has_a_late_slice_today_is_not_put_behind(
    scripted, notes, follower_of
) -> None:
    (series,) = _hold(scripted, 1)
    follower = _begun(follower_of(notes, existing_series=True))
    scripted.happen("StableSeries", series)
    _follow(follower)
    assert [(note.series, note.found) for note in notes.all()] == [(series, Found.STABLE)]


def test_a_log_that_says_there_is_more_and_has_nothing_more_is_not_read_for_ever(
    scripted, notes, follower_of
) -> None:
    notes.begin_at(0)
    scripted.happen("NewStudy", "a")
    stuck = {"Changes": scripted.changes, "Done": False, "Last": 1}
    scripted.answers["/changes?since=1&limit=200"] = stuck
    assert _follow(_begun(follower_of(notes))) < 5


# --- what Orthanc says wrongly, or not ---


def test_a_series_of_which_orthanc_cannot_speak_keeps_no_other_waiting(
    scripted, notes, carrier, follower_of
) -> None:
    scripted.answers[f"/series/{OTHER}"] = "no JSON"
    scripted.hold(SERIES, [CT])
    scripted.happen("StableSeries", OTHER)
    scripted.happen("StableSeries", SERIES)
    follower_of(notes).follow()
    carrier.look()
    assert notes.place.position == 2
    assert [body["Resources"] for _, body in scripted.posted] == [[SERIES]]
    bad = notes.get(OTHER)
    assert (bad.stage, bad.reason) == (Stage.WAITING, CarrierFault.ORTHANC)


def test_an_instance_of_which_orthanc_cannot_speak_ends_no_search(
    scripted, notes, follower_of
) -> None:
    notes.begin_at(0)
    for series in (OTHER, SERIES):
        scripted.hold(series, [CT])
        scripted.happen("NewInstance", f"{series}-0")
    parent = scripted.answers[f"/instances/{OTHER}-0/series"]
    scripted.answers[f"/instances/{OTHER}-0/series"] = "no JSON"
    scripted.happen("NewInstance", "gone")
    for _ in range(250):
        scripted.happen("NewStudy", "a")
    follower = _begun(follower_of(notes))
    while follower._search is not None and not follower._search._unclear:
        follower.follow()
    assert notes.place.floor == 0  # it is not known yet what it was

    scripted.answers[f"/instances/{OTHER}-0/series"] = parent
    _follow(follower)

    assert {note.series for note in notes.all()} == {OTHER, SERIES}


def test_an_instance_that_stays_unclear_is_told_and_the_others_are_found(
    scripted, notes, follower_of
) -> None:
    notes.begin_at(0)
    scripted.happen("NewInstance", "unclear")
    scripted.answers["/instances/unclear/series"] = "no JSON"
    scripted.hold(SERIES, [CT])
    scripted.happen("NewInstance", f"{SERIES}-0")
    _follow(_begun(follower_of(notes)))
    assert [note.series for note in notes.all()] == [SERIES]
    assert any("1 instances" in line for line in scripted.lines)


@pytest.mark.parametrize("is_started_again", [True, False])
def test_an_instance_of_which_orthanc_cannot_speak_for_long_is_found_when_it_can(
    scripted, ram_folder, follower_of, time_s, is_started_again
) -> None:
    notes = NoteBook(ram_folder / "notes")
    notes.begin_at(0)
    parents = {}
    for series in (SERIES, OTHER):
        scripted.hold(series, [CT] * 3)
        for number in range(3):
            scripted.happen("NewInstance", f"{series}-{number}")
    for number in range(3):
        uri = f"/instances/{OTHER}-{number}/series"
        parents[uri] = scripted.answers[uri]
        scripted.answers[uri] = "no JSON"
    follower = _begun(follower_of(notes))
    for _ in range(20):  # in which everything else gets old
        _follow(follower)
        time_s[0] += 60.0
    assert [note.series for note in notes.all()] == [SERIES]
    assert notes.place == Place(6, 3)  # all behind the unclear ones is looked at again
    written = (ram_folder / "notes").read_bytes()
    _follow(follower)
    assert (ram_folder / "notes").read_bytes() == written

    scripted.answers |= parents
    if is_started_again:
        notes = NoteBook(ram_folder / "notes")
        follower = _begun(follower_of(notes))
    time_s[0] += 60.0
    _follow(follower)

    assert notes.get(OTHER).found is Found.UNSETTLED
    assert notes.place == Place(6, 6)
    asked = len(scripted.asked)
    time_s[0] += 60.0
    _follow(follower)
    assert not [uri for uri in scripted.asked[asked:] if uri.startswith("/instances/")]


def test_no_instance_of_many_of_which_orthanc_cannot_speak_is_left_out(
    scripted, notes, follower_of, time_s, monkeypatch
) -> None:
    monkeypatch.setattr("pacs_bridge.plugin.unsettled._MAX_UNCLEAR", 250)
    monkeypatch.setattr("pacs_bridge.plugin.unsettled._ASKED_AT_ONCE", 20)
    notes.begin_at(0)
    ids = [f"{number:044}" for number in range(700)]
    for one in ids:
        scripted.hold(one, [CT])
        scripted.happen("NewInstance", f"{one}-0")
    bad = ids[10:600]
    parents = {uri: scripted.answers[uri] for uri in (f"/instances/{one}-0/series" for one in bad)}
    scripted.answers |= dict.fromkeys(parents, "no JSON")
    follower = _begun(follower_of(notes))
    for _ in range(5):
        _follow(follower)
        time_s[0] += 11.0
    assert notes.place == Place(700, 10)  # what is clear before the first that is not is noted
    assert len([line for line in scripted.lines if "does not say" in line]) == 1
    scripted.answers |= {uri: parents[uri] for uri in list(parents)[:-5]}  # some never

    for _ in range(5):
        _follow(follower)
        time_s[0] += 11.0

    assert {note.series for note in notes.all()} == {*ids} - {*bad[-5:]}
    assert notes.place == Place(700, 595)


def test_orthancs_end_is_not_held_up_by_a_long_log_of_changes(
    scripted, notes, follower_of, monkeypatch
) -> None:
    ids = [f"{number:044}" for number in range(100)]
    for one in ids:
        scripted.hold(one, [CT])
        scripted.happen("NewInstance", f"{one}-0")
    notes.begin_at(0)
    follower = _begun(follower_of(notes))
    ask = scripted.RestApiGet

    def end_at_the_third(uri: str) -> bytes:
        if uri == f"/instances/{ids[2]}-0/series":
            follower._server.leave()
        return ask(uri)

    monkeypatch.setattr(scripted, "RestApiGet", end_at_the_third)
    with pytest.raises(LeavingError):
        _follow(follower)
    assert scripted.asked[-1] == f"/instances/{ids[2]}-0/series"
    assert (notes.place.floor, notes.all()) == (0, ())  # it is all found again


def test_another_database_than_before_is_followed_from_its_end(
    scripted, notes, follower_of
) -> None:
    notes.advance(Place(5000, 4000), (), 1000.0)
    _hold(scripted, 6)
    follower_of(notes, existing_series=True).begin()
    assert notes.place == Place(12, 12)
    assert "another database" in scripted.lines[0]


def test_at_the_first_start_what_came_before_it_could_be_noted_is_new(
    scripted, notes, follower_of
) -> None:
    before = _hold(scripted, 3)
    last = scripted.changes[-1]["Seq"]
    new = _hold(scripted, 2, first=10)
    follower = follower_of(notes, existing_series=True)
    follower.begin(last)
    assert notes.place == Place(last, last, 0, last)
    _follow(follower)
    assert [(note.series, note.found) for note in notes.all()] == [
        *((one, Found.STABLE) for one in new),
        *((one, Found.EXISTING) for one in before),
    ]


# --- what was not stable when Orthanc ended ---


def test_what_became_stable_before_the_end_is_not_taken_for_unsettled(
    scripted, notes, follower_of
) -> None:
    for series in (SERIES, OTHER):
        scripted.hold(series, [CT])
        scripted.happen("NewInstance", f"{series}-0")
    scripted.happen("StableSeries", SERIES)
    scripted.happen("NewInstance", "gone")
    notes.advance(Place(4, 0), (), 1000.0)
    _follow(_begun(follower_of(notes)))
    assert [note.series for note in notes.all()] == [OTHER]

    # It is found once, not at every start.
    notes.settle(OTHER, 1000.0)
    _follow(_begun(follower_of(notes)))
    assert notes.all() == ()


def test_what_was_not_stable_when_orthanc_ended_is_given_the_time_to_become_whole(
    scripted, notes, carrier, time_s, follower_of
) -> None:
    scripted.hold(SERIES, [CT])  # Orthanc forgets what was unstable, and calls it stable
    scripted.happen("NewInstance", f"{SERIES}-0")
    notes.advance(Place(1, 0), (), 1000.0)
    _follow(_begun(follower_of(notes)))
    for time_s[0] in (1000.0, 1030.0, 1059.0):
        carrier.look()
        assert carrier.next_due_s() == 1060.0
    assert scripted.posted == []
    time_s[0] = 1060.0
    carrier.look()
    assert len(scripted.posted) == 1


def test_the_floor_follows_when_everything_before_it_is_stable(
    scripted, notes, follower_of, time_s
) -> None:
    follower = follower_of(notes)
    notes.advance(Place(3, 0), (), 1000.0)
    for _ in range(9):
        scripted.happen("NewInstance", "x")
    floors = []
    for _ in range(12):
        follower.follow()
        floors.append(notes.place.floor)
        time_s[0] += 15.0
    assert floors == sorted(floors)
    assert floors[:6] == [0] * 6  # its series may still be unstable
    assert floors[-1] == notes.place.position == 9


# --- today first ---


def test_todays_series_go_before_those_that_were_there_at_the_first_start(
    scripted, ram_folder, follower_of, notes
) -> None:
    existing = _hold(scripted, 300)
    _begun(follower_of(notes, existing_series=True))
    (new,) = _hold(scripted, 1, first=300)
    scripted.answers["/jobs/job1"] = {"State": "Success"}
    again = NoteBook(ram_folder / "notes")  # Orthanc may end in between
    _follow(_begun(follower_of(again, existing_series=True)))
    assert len(again.all()) == 301
    server = OrthancServer(scripted)
    settings = Settings("bridge", Path("unused"), 60.0, existing_series=True)
    carrier = Carrier(server, again, settings, Announcer(server, None))
    carrier.look()
    carrier.look()
    assert [body["Resources"] for _, body in scripted.posted] == [[new], [existing[0]]]


# --- damaged notes ---


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("damaged", range(1, 22))
def test_whatever_line_is_damaged_nothing_is_lost_and_nothing_delivered_is_sent_again(
    scripted, ram_folder, follower_of, damaged
) -> None:
    path = ram_folder / "notes"
    notes = NoteBook(path)
    notes.begin_at(0)
    delivered = _hold(scripted, 90)
    follower = _begun(follower_of(notes))
    _follow(follower)
    for series in delivered:
        notes.settle(series, 1000.0)
    held = _hold(scripted, 50, first=90)
    _follow(follower)
    late = _hold(scripted, 3, first=140)
    _follow(follower)
    for series in held[:10]:
        notes.settle(series, 1000.0)
    lines = _lines(path)
    number = (damaged - 1) * (len(lines) - 1) // 20
    path.write_bytes(b"".join([*lines[:number], b"\0" * 30 + b"\n", *lines[number + 1 :]]))

    again = NoteBook(path)
    _follow(_begun(follower_of(again)))

    wanted = {*held[10:], *late}
    found = {note.series for note in again.all()}
    assert wanted <= found
    # A line that says that one has arrived stands nowhere else: that one is looked after again.
    assert len(found - wanted) <= 1
    assert again.damage
    assert NoteBook(path).damage == ()


def test_what_a_damaged_line_noted_is_found_again_and_what_came_of_the_rest_is_known(
    scripted, ram_folder, follower_of
) -> None:
    path = ram_folder / "notes"
    notes = NoteBook(path)
    notes.begin_at(0)
    follower = _begun(follower_of(notes))
    delivered = _hold(scripted, 5)
    _follow(follower)
    number = len(_lines(path))
    waiting = _hold(scripted, 5, first=5)
    follower.follow()
    for series in delivered:
        notes.settle(series, 1000.0)
    lines = _lines(path)
    assert waiting[0].encode() in lines[number]
    path.write_bytes(b"".join([*lines[:number], b"nothing\n", *lines[number + 1 :]]))

    again = NoteBook(path)
    _follow(_begun(follower_of(again)))

    assert [note.series for note in again.all()] == waiting


def test_notes_of_which_nothing_can_be_read_have_the_log_read_from_now_on(
    scripted, ram_folder, follower_of
) -> None:
    path = ram_folder / "notes"
    path.write_bytes(b"\0\n")
    ids = _hold(scripted, 10)
    notes = NoteBook(path)
    follower = _begun(follower_of(notes, existing_series=True))
    (new,) = _hold(scripted, 1, first=10)
    _follow(follower)
    assert [note.series for note in notes.all()] == [new]
    assert not any(f"/series/{ids[0]}" in uri for uri in scripted.asked)


def test_an_orthanc_that_does_not_answer_is_asked_again(scripted, notes, follower_of) -> None:
    scripted.answers["/changes?last"] = "no JSON"
    with pytest.raises(ServerError):
        follower_of(notes).begin()
    assert notes.place is None
