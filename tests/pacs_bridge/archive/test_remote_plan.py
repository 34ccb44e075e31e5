"""Series of a PACS in a plan: whose they are, and what is done where that is in doubt."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_seg.read.examination import SeriesRules
from inference.reasons import Reason
from pacs_bridge.archive import schema
from pacs_bridge.archive.accounts import outcome_counts
from pacs_bridge.archive.manifest import UnusableListError
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planning import (
    PlanEndedError,
    PlanInputs,
    RemoteInput,
    is_complete,
    make_plan,
)
from pacs_bridge.archive.remote_plan import RemotePlan
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.identity_hash import KEY_NAME, IdentityHash
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.sources.remote_archive import FoundPatient, FoundSeries, SeriesQuery

JANE = FoundPatient("PID-1", "", "Doe^Jane", "19700101")


def row(uid: str = "1.1", study: str = "1.9", patient: FoundPatient = JANE, **more) -> FoundSeries:
    facts = {"modality": "CT", "instance_count": 12, "study_date": "20260101"} | more
    return FoundSeries(study, uid, facts=SeriesFacts(modality="CT"), patient=patient, **facts)


@dataclass
class Catalogue:
    """An archive that is only searched."""

    rows: list[FoundSeries] = field(default_factory=list)
    queries: list[SeriesQuery] = field(default_factory=list)
    breaks_after: int | None = None

    def find(self, query: SeriesQuery, check=None) -> Iterator[FoundSeries]:
        self.queries.append(query)
        for number, each in enumerate(self.rows):
            check()
            if number == self.breaks_after:
                raise TransientError(Reason.SOURCE_UNREACHABLE, "the association was aborted")
            if query.wants(each):
                yield each


@dataclass
class Planned:
    """A plan of a catalogue."""

    plan: PlanFile
    archive: Catalogue

    def take(self, *rows: FoundSeries, query: SeriesQuery | None = None) -> dict[str, int]:
        self.archive.rows = list(rows)
        self._remote().found(query or SeriesQuery())
        return self.outcomes()

    def take_listed(
        self, listed: dict[str, str], *rows: FoundSeries, query: SeriesQuery | None = None
    ) -> dict[str, int]:
        self.archive.rows = list(rows)
        self._remote().listed(listed, query or SeriesQuery())
        return self.outcomes()

    def outcomes(self) -> dict[str, int]:
        return {count.reason or "run": count.series for count in outcome_counts(self.plan)}

    def _remote(self) -> RemotePlan:
        hide = IdentityHash(b"key")
        return RemotePlan(self.plan, "pacs", self.archive, SeriesRules(), hide)


@pytest.fixture
def planned(ram_folder) -> Iterator[Planned]:
    plan = PlanFile(ram_folder / "run", must_exist=False)
    yield Planned(plan, Catalogue())
    plan.close()


@pytest.mark.parametrize(
    "other",
    [
        row(study="1.8"),
        row(patient=replace(JANE, patient_id="PID-2")),
        row(patient=replace(JANE, issuer="another hospital")),
        row(patient=replace(JANE, name="Roe^Rick", birth_date="19800202")),
    ],
    ids=["study", "patient", "issuer", "person"],
)
def test_a_series_uid_of_two_patients_or_studies_does_not_run(planned, other):
    for rows in ([row(), other], [other, row()], [row(), other, row()]):
        assert planned.take(*rows, row("1.2")) == {"mixed-identity": 1, "run": 1}


@pytest.mark.parametrize(
    "other",
    [
        row(),
        row(patient=replace(JANE, name="Doe^Jane^Mary")),  # she has married
        row(patient=FoundPatient()),  # the archive does not say
    ],
    ids=["again", "name", "untold"],
)
def test_the_same_series_named_twice_runs(planned, other):
    assert planned.take(row(), other) == {"run": 1}
    assert planned.take(other, row()) == {"run": 1}


def test_a_patient_that_only_one_row_of_a_series_tells_is_the_planned_one(planned):
    planned.take(row(), row(patient=FoundPatient()))
    corrected = row(patient=replace(JANE, patient_id="PID-7"))
    planned.take(corrected)
    assert len(planned.archive.queries) == 3


def test_two_patients_are_told_apart_behind_a_row_that_tells_none(planned):
    rows = [row(patient=FoundPatient()), row(), row(patient=replace(JANE, patient_id="PID-2"))]
    assert planned.take(*rows) == {"mixed-identity": 1}


def test_two_patients_that_are_found_by_different_queries_do_not_run(planned):
    jane = row(study_date="20260110")
    rick = row(patient=FoundPatient("PID-2", "", "Roe^R", "19800202"), study_date="20260210")
    january = SeriesQuery(date(2026, 1, 1), date(2026, 1, 31))
    february = SeriesQuery(date(2026, 2, 1), date(2026, 2, 28))
    assert planned.take(jane, rick, query=january) == {"run": 1}
    for query in (february, february, january):
        assert planned.take(jane, rick, query=query) == {"mixed-identity": 1}


def test_a_patient_that_was_corrected_at_the_archive_runs_as_the_new_one(planned):
    assert planned.take(row()) == {"run": 1}
    corrected = row(patient=replace(JANE, patient_id="PID-7"))
    assert planned.take(corrected) == {"run": 1}
    assert len(planned.archive.queries) == 3  # it was asked whether it has the other one, too
    assert planned.take(corrected) == {"run": 1}
    assert len(planned.archive.queries) == 4


def test_a_series_that_was_planned_otherwise_and_is_not_found_again_does_not_run(planned):
    planned.take(row())
    planned.archive.find = lambda query, check=None: iter(
        [] if query.series_instance_uids else [row(study="1.8")]
    )
    assert planned.take() == {"mixed-identity": 1}


def test_a_list_that_names_another_study_selects_nothing(planned):
    listed = {"1.1": "1.9", "1.2": "1.9", "1.3": ""}
    rows = [row("1.1"), row("1.2", study="1.8"), row("1.3", study="1.8")]
    assert planned.take_listed(listed, *rows) == {"run": 2, "source-missing": 1}


def test_listed_series_that_an_archive_does_not_have_are_coded(planned):
    rows = [row("1.1"), row("1.5")]
    assert planned.take_listed({"1.1": "", "1.4": "1.9"}, *rows) == {"run": 1, "source-missing": 1}


def test_a_listed_series_that_is_no_ct_is_said_to_be_none(planned):
    rows = [row("1.1"), row("1.2", modality="MR")]
    for _ in range(2):
        assert planned.take_listed({"1.1": "", "1.2": ""}, *rows) == {"run": 1, "not-ct": 1}


@pytest.mark.parametrize("was_planned", [False, True])
def test_a_listed_series_outside_the_query_is_not_said_to_be_missing(planned, was_planned):
    listed = {"1.1": "1.9", "1.2": "", "1.3": "", "1.4": "", "1.5": "1.8"}
    rows = [
        *(row("1.1"), row("1.2", study_date="20260301"), row("1.5")),
        row("1.3", study_date="20260301", modality="MR"),
    ]
    if was_planned:
        assert planned.take(*rows) == {"run": 3}
    january = SeriesQuery(date(2026, 1, 1), date(2026, 1, 31))
    for _ in range(2):
        assert planned.take_listed(listed, *rows, query=january) == {
            "run": 1, "not-selected": 1, "not-ct": 1, "source-missing": 2,
        }  # fmt: skip
    del listed["1.4"], listed["1.5"]
    assert planned.take_listed(listed, *rows)["run"] == 2


@pytest.mark.parametrize("answer", [Reason.SOURCE_REFUSED, Reason.SOURCE_MISSING])
def test_no_series_outside_the_query_runs_where_an_archive_needs_the_study(planned, answer):
    planned.archive = Daily(answer=answer)
    rows = [row(f"1.2.{number}", f"1.9.{number}") for number in range(60)]
    listed = {each.series_instance_uid: each.study_instance_uid for each in rows}
    february = SeriesQuery(date(2026, 2, 1), date(2026, 2, 28))
    rows.append(row("1.5", study_date="20260210", modality="MR"))
    listed = {"1.4": ""} | listed | {"1.5": ""}
    for _ in range(2):
        assert planned.take_listed(listed, *rows, query=february) == {
            "not-selected": 60, "source-missing": 1, "not-ct": 1,
        }  # fmt: skip


def test_the_days_of_a_list_are_searched_for_what_the_query_wants_alone(planned):
    rows = [row(f"1.2.{number}") for number in range(60)]
    listed = {each.series_instance_uid: "" for each in rows}
    january = SeriesQuery(date(2026, 1, 1), date(2026, 1, 31))
    assert planned.take_listed(listed, *rows, query=january) == {"run": 60}
    assert len(planned.archive.queries) == 2
    mr = row("1.5", modality="MR")
    assert planned.take_listed(listed | {"1.5": ""}, *rows, mr, query=january) == {
        "run": 60, "not-ct": 1,
    }  # fmt: skip
    in_days = [query for query in planned.archive.queries if query.from_date is not None]
    assert {query.modalities for query in in_days} == {("CT",)}


def test_a_listed_series_that_was_planned_and_is_gone_is_missing_until_it_is_back(planned):
    listed = {"1.1": "", "1.2": "1.9"}
    assert planned.take_listed(listed, row("1.1"), row("1.2")) == {"run": 2}
    for gone in ([row("1.1")], [row("1.1"), row("1.2", study="1.8")]):
        assert planned.take_listed(listed, *gone) == {"run": 1, "source-missing": 1}
    assert planned.take_listed({"1.1": ""}, row("1.1")) == {"run": 1, "not-selected": 1}
    assert planned.take_listed(listed, row("1.1")) == {"run": 1, "source-missing": 1}
    assert planned.take_listed(listed, row("1.1"), row("1.2")) == {"run": 2}


def test_no_identity_of_a_patient_at_a_pacs_is_in_a_plan(planned, ram_folder):
    planned.take(row(patient=FoundPatient("PID-1", "Hospital-X", "Doe^Jane", "19700101")))
    planned.plan.close()
    for path in (ram_folder / "run").iterdir():
        content = path.read_bytes()
        for word in (b"Doe", b"PID-1", b"19700101", b"Hospital-X"):
            assert word not in content, path.name


def test_no_identity_of_a_patient_is_in_the_text_of_what_was_found():
    assert "Doe" not in repr(row())
    assert "PID-1" not in repr(row())


def remote(archive: Catalogue) -> PlanInputs:
    return PlanInputs(remote=RemoteInput("pacs", archive, SeriesQuery()), processes=1)


def test_an_archive_that_breaks_off_leaves_a_plan_that_is_not_complete(ram_folder):
    archive = Catalogue([row(), row("1.2")], breaks_after=1)
    with pytest.raises(TransientError):
        make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None)
    plan = PlanFile(ram_folder / "run")
    assert not is_complete(plan)
    archive.breaks_after = None
    make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None)
    assert is_complete(plan)
    plan.close()


def test_a_plan_that_is_told_to_end_while_an_archive_is_asked_goes_on_later(ram_folder):
    archive = Catalogue([row(f"1.{number}") for number in range(9)])
    checks = iter(range(9))

    def check() -> None:
        if next(checks) == 5:
            raise PlanEndedError

    with pytest.raises(PlanEndedError):
        make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None, check)
    plan = PlanFile(ram_folder / "run")
    assert not is_complete(plan)
    make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None)
    assert is_complete(plan)
    assert outcome_counts(plan)[0].series == 9
    plan.close()


def test_a_plan_that_is_told_to_end_while_folders_are_walked_goes_on_later(ram_folder, tree):
    tree.fill(6)
    inputs = PlanInputs(paths=(tree.root,), processes=1)

    def check() -> None:
        raise PlanEndedError

    with pytest.raises(PlanEndedError):
        make_plan(ram_folder / "run", inputs, SeriesRules(), lambda *_: None, check)
    make_plan(ram_folder / "run", PlanInputs(processes=1), SeriesRules(), lambda *_: None)
    plan = PlanFile(ram_folder / "run")
    assert is_complete(plan)
    assert outcome_counts(plan)[0].series == 6
    plan.close()


def test_a_narrower_query_says_which_series_are_outside_it_and_a_wider_one_takes_them_in(planned):
    series = [row("1.1"), row("1.2", study_date="20260301"), row("1.3", modality="MR")]
    everything = SeriesQuery(modalities=())
    assert planned.take(*series, query=everything) == {"run": 2, "not-ct": 1}
    march = SeriesQuery(from_date=date(2026, 3, 1), modalities=())
    assert planned.take(*series, query=march) == {"run": 1, "not-selected": 1, "not-ct": 1}
    assert planned.take(*series, query=everything) == {"run": 2, "not-ct": 1}


def test_series_of_other_archives_are_not_outside_a_query(planned):
    planned.take(row("1.1"))
    planned.archive.rows = [row("1.2")]
    hide = IdentityHash(b"key")
    other = RemotePlan(planned.plan, "other", planned.archive, SeriesRules(), hide)
    other.found(SeriesQuery())
    assert planned.outcomes() == {"run": 2}


def test_an_archive_that_breaks_off_takes_no_series_out(planned):
    planned.take(row("1.1"), row("1.2"))
    planned.archive.breaks_after = 1
    with pytest.raises(TransientError):
        planned.take(row("1.1"), row("1.2"))
    assert planned.outcomes() == {"run": 2}


def test_a_shorter_list_takes_the_place_of_a_longer_one_at_an_archive(planned):
    rows = [row("1.1"), row("1.2"), row("1.3")]
    assert planned.take_listed({"1.1": "", "1.2": ""}, *rows) == {"run": 2}
    assert planned.take_listed({"1.2": "", "1.3": ""}, *rows) == {"run": 2, "not-selected": 1}


def outcomes_by(ram_folder: Path, archive: Catalogue, folder: Path, text: str) -> dict[str, int]:
    """What a plan of a folder and an archive says by a list."""
    listed = ram_folder / "list.csv"
    listed.write_text(text)
    inputs = replace(remote(archive), paths=(folder,), manifest=listed)
    make_plan(ram_folder / "run", inputs, SeriesRules(), lambda *_: None)
    plan = PlanFile(ram_folder / "run")
    try:
        return {count.reason or "run": count.series for count in outcome_counts(plan)}
    finally:
        plan.close()


def test_a_list_selects_of_folders_and_of_an_archive_at_once(tree, ram_folder):
    for folder in "ab":
        tree.add("run", folder)
    one, other = (f"1.2.826.0.1.3680043.8.498.1.{100_000_000 + number}" for number in (1, 2))
    archive = Catalogue([row("1.1"), row("1.2")])
    listed = f"{one}\n1.1\n1.404\n"
    for _ in range(2):
        assert outcomes_by(ram_folder, archive, tree.root, listed) == {
            "run": 2, "not-selected": 1, "source-missing": 1,
        }  # fmt: skip
    assert outcomes_by(ram_folder, archive, tree.root, f"{other}\n1.2\n") == {
        "run": 2, "not-selected": 2,
    }  # fmt: skip


def test_a_list_of_paths_does_not_ask_an_archive_for_everything(tree, ram_folder):
    tree.add("run", "a")
    with pytest.raises(UnusableListError, match="UID"):
        outcomes_by(ram_folder, Catalogue([row()]), tree.root, "path\narchive/a\n")
    assert not (ram_folder / "run").exists()


def test_a_plan_that_was_ended_before_its_first_word_is_not_complete(ram_folder):
    plan = PlanFile(ram_folder / "run", must_exist=False)
    assert not is_complete(plan)
    plan.close()


def test_another_key_in_the_folder_of_a_run_is_told(ram_folder):
    archive = Catalogue([row()])
    make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None)
    key = ram_folder / "run" / KEY_NAME
    known = key.read_bytes()
    for other in (None, b"another"):
        key.unlink() if other is None else key.write_bytes(other)
        with pytest.raises(PermanentError, match=KEY_NAME):
            make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None)
        assert key.exists() == (other is not None)
    key.write_bytes(known)
    make_plan(ram_folder / "run", remote(archive), SeriesRules(), lambda *_: None)


def test_a_plan_of_the_version_before_is_brought_over(ram_folder):
    tables = re.sub(r",\s*--[^\n]*\n\s*--[^\n]*\n\s*patient TEXT[^\n]*", "", schema._TABLES)
    tables = re.sub(r",\s*is_own [^\n]*", "", tables)
    assert "patient" not in tables
    assert "is_own" not in tables
    (ram_folder / "run").mkdir()
    connection = sqlite3.connect(ram_folder / "run" / "plan.sqlite")
    connection.executescript(tables)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.execute(
        "INSERT INTO series (series, study_instance_uid, source, instances, planes, bytes,"
        " contents, plan_detail, findings) VALUES ('1.1', '1.9', 'pacs', 12, 0, 0, '', '', '[]')"
    )
    connection.commit()
    connection.close()
    planned = Planned(PlanFile(ram_folder / "run"), Catalogue())
    assert planned.outcomes() == {"run": 1}
    two = (row(), row(patient=replace(JANE, patient_id="PID-2")))
    assert planned.take(*two) == {"mixed-identity": 1}
    with planned.plan.read() as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
    planned.plan.close()


def test_a_plan_of_a_later_version_is_left_alone(planned, ram_folder):
    planned.plan.close()
    connection = sqlite3.connect(ram_folder / "run" / "plan.sqlite")
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(PermanentError) as caught:
        PlanFile(ram_folder / "run")
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE


def test_what_is_read_in_a_snapshot_is_of_one_moment(planned, ram_folder):
    planned.take(row())
    other = PlanFile(ram_folder / "run")
    with planned.plan.snapshot():
        assert planned.outcomes() == {"run": 1}
        with other.write() as connection:
            connection.execute("DELETE FROM series")
        assert planned.outcomes() == {"run": 1}
    assert planned.outcomes() == {}
    other.close()


def take_from(planned: Planned, source: str, *rows: FoundSeries) -> dict[str, int]:
    planned.archive.rows = list(rows)
    hide = IdentityHash(b"key")
    RemotePlan(planned.plan, source, planned.archive, SeriesRules(), hide).found(SeriesQuery())
    return planned.outcomes()


@pytest.mark.parametrize("other", [row(study="1.8"), row(patient=FoundPatient("PID-2"))])
def test_a_series_uid_that_two_archives_have_of_two_patients_or_studies_does_not_run(
    planned, other
):
    assert take_from(planned, "one", row()) == {"run": 1}
    assert take_from(planned, "two", other) == {"mixed-identity": 1}
    assert take_from(planned, "one", row()) == {"mixed-identity": 1}
    assert take_from(planned, "two", row()) == {"mixed-identity": 1}  # for the first to say
    assert take_from(planned, "one", row()) == {"run": 1}


def test_a_series_that_two_archives_have_of_one_patient_runs_once(planned):
    assert take_from(planned, "one", row()) == {"run": 1}
    assert take_from(planned, "two", row()) == {"run": 1}


@pytest.mark.parametrize("is_pacs_first", [False, True])
@pytest.mark.parametrize("patient", ["PID-1", "PID-2"])
def test_files_and_a_pacs_that_have_one_series_uid_have_to_agree_whose_it_is(
    ram_folder, tree, is_pacs_first, patient
):
    tree.add("run", "a")
    ds = dcmread(next((tree.root / "a").iterdir()))
    who = FoundPatient(patient, "issuer", "Doe^Jane", "19700101")
    told = row(str(ds.SeriesInstanceUID), str(ds.StudyInstanceUID), who)
    archive = Catalogue([told])
    expected = {"run": 1} if patient == "PID-1" else {"mixed-identity": 1}
    (ram_folder / "run").mkdir()
    (ram_folder / "run" / KEY_NAME).write_bytes(b"key")

    def plan(inputs: PlanInputs) -> dict[str, int]:
        make_plan(ram_folder / "run", inputs, SeriesRules(), lambda *_: None)
        made = PlanFile(ram_folder / "run")
        try:
            return Planned(made, archive).outcomes()
        finally:
            made.close()

    first, second = PlanInputs(paths=(tree.root,), processes=1), remote(archive)
    if is_pacs_first:
        first, second = second, first
    plan(first)
    assert plan(second) == expected
    assert plan(PlanInputs(processes=1)) == expected
    assert plan(remote(archive)) == expected
    archive.rows = [replace(told, patient=JANE)]
    assert plan(remote(archive)) == {"run": 1}


@dataclass
class Hierarchical(Catalogue):
    """An archive that looks for series in a study only."""

    refusal: Reason | None = Reason.SOURCE_REFUSED

    def find(self, query: SeriesQuery, check=None) -> Iterator[FoundSeries]:
        known = {each.study_instance_uid for each in self.rows}
        if not query.series_instance_uids or query.study_instance_uids:
            is_there = known.issuperset(query.study_instance_uids)
            if self.refusal is Reason.SOURCE_MISSING and not is_there:
                raise PermanentError(self.refusal, "status 404")
            yield from Catalogue.find(self, query, check)
        elif self.refusal is not None:
            raise PermanentError(self.refusal, "of no study")


@dataclass
class Daily(Catalogue):
    """An archive that looks for series in a study, or in the studies of some days, only."""

    answer: Reason = Reason.SOURCE_REFUSED

    def find(self, query: SeriesQuery, check=None) -> Iterator[FoundSeries]:
        if not (query.study_instance_uids or query.from_date):
            raise PermanentError(self.answer, "of no study")
        yield from Catalogue.find(self, query, check)


@pytest.mark.parametrize("refusal", [None, Reason.SOURCE_REFUSED, Reason.SOURCE_MISSING])
def test_an_archive_without_relational_queries_is_asked_by_the_studies_that_are_known(
    planned, refusal
):
    planned.archive = Hierarchical(refusal=refusal)
    assert planned.take(row()) == {"run": 1}
    assert planned.take(row(patient=replace(JANE, patient_id="PID-7"))) == {"run": 1}
    assert planned.take(row(study="1.8")) == {"run": 1}
    assert planned.take(row(), row(study="1.8")) == {"mixed-identity": 1}
    assert planned.take_listed({"1.1": "1.9", "1.2": "1.9"}, row(), row("1.2")) == {"run": 2}
    assert planned.take_listed({"1.1": "1.9", "1.2": "1.7"}, row(), row("1.2")) == {
        "run": 1, "source-missing": 1,
    }  # fmt: skip


def test_a_list_without_studies_is_refused_where_an_archive_refuses_to_look_without(planned):
    planned.archive = Hierarchical()
    with pytest.raises(PermanentError):
        planned.take_listed({"1.1": "1.9", "1.2": ""}, row(), row("1.2"))
