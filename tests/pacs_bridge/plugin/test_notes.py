"""Notes of what is to be sent: on the disk before anything is done, whole or not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pacs_bridge.plugin.notes import Found, Note, NoteBook, Place, Stage


@pytest.fixture
def path(ram_folder: Path) -> Path:
    return ram_folder / "folder" / "notes"


def test_what_was_noted_is_there_after_a_new_start(path: Path) -> None:
    book = NoteBook(path)
    assert book.place is None
    book.advance(Place(7, 3), ["a", "b", "a"], 100.0)
    book.put(Note("b", 100.0, Stage.SENDING, job="j", attempts=2))
    book.add("c", 101.0)
    book.settle("a", 102.0)

    again = NoteBook(path)
    assert again.place == Place(7, 3)
    assert (
        again.all()
        == book.all()
        == (
            Note("b", 100.0, Stage.SENDING, job="j", attempts=2),
            Note("c", 101.0),
        )
    )


def test_how_a_series_was_found_is_known_after_a_new_start(path: Path) -> None:
    book = NoteBook(path)
    book.begin_at(0, existing_end=9)
    book.advance(Place(0, 0, 5, 9), ["a"], 100.0, Found.EXISTING)
    book.advance(Place(12, 0, 5, 9), ["b"], 100.0, Found.UNSETTLED)
    for _ in range(2):
        book = NoteBook(path)
        assert book.place == Place(12, 0, 5, 9)
        found = [(note.series, note.found) for note in book.all()]
        assert found == [("a", Found.EXISTING), ("b", Found.UNSETTLED)]
    book.begin_at(3)
    assert NoteBook(path).place == Place(3, 3)


def test_every_cut_of_the_file_leaves_a_state_that_was_once_true(path: Path) -> None:
    book = NoteBook(path)
    states = {(book.place, book.all())}
    for number in range(4):
        book.advance(Place(number, 0), [f"s{number}"], 1.0)
        states.add((book.place, book.all()))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        cut = NoteBook(path)
        assert (cut.place, cut.all()) in states


def test_a_series_that_is_stable_again_while_it_is_sent_is_sent_once_more(path: Path) -> None:
    book = NoteBook(path)
    book.add("a", 1.0)
    sending = Note("a", 1.0, Stage.SENDING)
    book.put(sending)
    book.advance(Place(1, 0), ["a"], 2.0)
    book.put(replace(sending, job="j"))  # what was noted meanwhile is not forgotten
    assert book.get("a") == Note("a", 1.0, Stage.SENDING, job="j", is_changed=True)

    book.settle("a", 3.0)
    assert NoteBook(path).all() == (Note("a", 3.0),)
    book.settle("a", 4.0)
    assert NoteBook(path).all() == ()


def test_many_lines_become_one(path: Path) -> None:
    book = NoteBook(path)
    for number in range(1200):
        book.advance(Place(number, number), (), 1.0)
    assert len(path.read_bytes().splitlines()) < 300
    assert NoteBook(path).place == Place(1199, 1199)


def test_what_cannot_be_written_is_not_believed(path: Path, monkeypatch) -> None:
    book = NoteBook(path)
    book.add("a", 1.0)
    before = path.read_bytes()

    def full(descriptor: int, data: bytes) -> None:
        import os

        os.write(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pacs_bridge.plugin.journal._write_all", full)
    with pytest.raises(OSError, match="No space"):
        book.add("b", 1.0)
    assert book.all() == (Note("a", 1.0),)
    assert path.read_bytes() == before


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    NoteBook(path)
    assert path.stat().st_mode & 0o077 == 0


def _damage(path: Path, *numbers: int) -> None:
    """Let lines of the file, from 1, hold something else than was written."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number in numbers:
        half = len(lines[number - 1]) // 2
        lines[number - 1] = lines[number - 1][:half] + b"\0" + lines[number - 1][half + 1 :]
    path.write_bytes(b"".join(lines))


def test_a_damaged_line_costs_itself_and_neither_the_position_nor_what_stands_behind(
    path: Path,
) -> None:
    book = NoteBook(path)
    for position, series in ((1, "a"), (2, "b"), (3, "c")):
        book.advance(Place(position, 0), [series], 1.0)
    book.settle("a", 2.0)
    _damage(path, len(path.read_bytes().splitlines()) - 2)

    again = NoteBook(path)

    assert len(again.damage) == len(again.faults) == 1
    assert (again.place, {note.series for note in again.all()}) == (Place(3, 0), {"c"})
    assert again.doubt is not None
    assert again.doubt.before == Place(1, 0)
    assert again.doubt.mentioned >= {"a", "c"}
    assert NoteBook(path).damage == again.damage  # as long as what it noted was not looked for
    again.tidy()
    assert NoteBook(path).damage == ()


def test_any_one_line_of_what_was_put_together_may_be_damaged(path: Path) -> None:
    book = NoteBook(path)
    book.begin_at(40, existing_end=30)
    book.advance(Place(50, 45, 20, 30), ["a", "b", "c"], 1.0)
    book.put(Note("b", 1.0, Stage.SENDING, job="j", attempts=2))
    whole = NoteBook(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        path.write_bytes(b"".join(lines))
        _damage(path, number)
        again = NoteBook(path)
        assert again.damage == (number,)
        assert (again.place, set(again.all())) == (whole.place, set(whole.all()))


def test_a_line_that_says_something_else_than_was_written_is_damaged(path: Path) -> None:
    book = NoteBook(path)
    book.begin_at(1200)
    path.write_bytes(path.read_bytes().replace(b"1200", b"1900"))
    assert len(NoteBook(path).damage) == 1


def test_of_notes_of_which_nothing_can_be_read_nothing_is_made_up(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\0\n")
    book = NoteBook(path)
    assert (book.damage, book.place, book.doubt, book.all()) == ((1,), None, None, ())
    assert "from now on" in book.faults[0]


def test_a_line_never_begins_within_another(path: Path) -> None:
    book = NoteBook(path)
    book.advance(Place(1, 0), (), 1.0)
    with path.open("ab") as file:
        file.write(b'{"notes": [{"ser')
    book.advance(Place(2, 0), ["a"], 1.0)
    assert [note.series for note in NoteBook(path).all()] == ["a"]


def test_what_another_version_wrote_beside_what_is_known_is_passed_over(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(
        '{"position": 5, "floor": 4, "colour": "blue", "notes":'
        ' [{"series": "a", "noted_s": 1.0, "stage": "waiting", "colour": "blue"}]}\n'
    )
    book = NoteBook(path)
    assert (book.damage, book.place, book.all()) == ((), Place(5, 4), (Note("a", 1.0),))


def test_an_operators_word_stays_until_the_series_is_noted_anew(path: Path) -> None:
    book = NoteBook(path)
    book.add("a", 1.0)
    waiting = book.get("a")
    assert waiting is not None
    book.force("a")
    book.put(replace(waiting, attempts=1))  # by who looked at the note before
    assert book.get("a") == Note("a", 1.0, attempts=1, is_forced=True)
    book.add("a", 2.0)
    assert book.get("a") == Note("a", 2.0)
    sending = Note("a", 2.0, Stage.SENDING)
    book.put(sending)
    book.force("a")
    book.advance(Place(1, 0), ["a"], 3.0)  # it has become stable again: more has come
    assert book.get("a") == replace(sending, is_changed=True)
    book.force("b")  # of which nothing is on its way
    assert book.get("b") is None


def test_what_is_given_up_while_it_is_stable_again_is_not_given_up(path: Path) -> None:
    book = NoteBook(path)
    sending = Note("a", 1.0, Stage.SENDING)
    book.put(sending)
    book.advance(Place(1, 0), ["a"], 2.0)
    failed = replace(sending, stage=Stage.FAILED)
    book.give_up(failed, 3.0)
    assert book.all() == (Note("a", 3.0),)
    book.give_up(failed, 4.0)
    assert NoteBook(path).all() == (failed,)


def test_the_notes_are_one_process_s_alone(path: Path) -> None:
    book = NoteBook.open_alone(path)
    with pytest.raises(BlockingIOError):
        NoteBook.open_alone(path)
    book.close()
    NoteBook.open_alone(path).close()
