"""Planning series that a remote archive has, by what it says of them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import islice
from typing import Final

from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.kind import CT_SOP_CLASSES, MULTI_FRAME_CT_SOP_CLASSES
from inference.reasons import Reason
from pacs_bridge.archive.absent_series import missing
from pacs_bridge.archive.hidden_patient import HiddenPatient
from pacs_bridge.archive.named_search import NamedSearch, uids_at_once
from pacs_bridge.archive.plan_file import FILES, PlanFile
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.receive.header import is_valid_uid
from pacs_bridge.sources.remote_archive import FoundSeries, RemoteArchive, SeriesQuery

_ROWS_AT_ONCE: Final = 500
#: By series, where it is known to be.
_Studies = dict[str, set[str]]

#: Series that an archive has named in one answer, and how the first time.
_MET: Final = """
CREATE TEMP TABLE IF NOT EXISTS met (
    series TEXT PRIMARY KEY, study_instance_uid TEXT NOT NULL, patient TEXT NOT NULL,
    is_mixed INTEGER NOT NULL
)
"""
#: Series that an archive has named in all answers to what it was asked for.
_SELECTED: Final = "CREATE TEMP TABLE IF NOT EXISTS selected (series TEXT PRIMARY KEY)"
#: Series of other sources that an archive has named otherwise in its answers.
_CONTESTED: Final = "CREATE TEMP TABLE IF NOT EXISTS contested (series TEXT PRIMARY KEY)"
#: How a detail of series begins that two sources have of other patients or studies.
_ALSO_AT: Final = "also at "
#: Detail of series that a list names, and that were planned before: they may have results.
_GONE: Final = "listed, and not in the archive any more, or not in the study that is listed"
#: Detail of series that a list names and the archive has, but not among what it is asked for.
_OUTSIDE: Final = "listed, and outside the query of this plan"
#: Every series of an archive, of any modality.
_ANYTHING: Final = SeriesQuery(modalities=())
#: While another source has a series otherwise, what this one says does not make it run.
KEEP_CONTESTED: Final = f"""
    plan_reason =
        CASE WHEN plan_detail LIKE '{_ALSO_AT}%' THEN plan_reason ELSE excluded.plan_reason END,
    plan_detail =
        CASE WHEN plan_detail LIKE '{_ALSO_AT}%' THEN plan_detail ELSE excluded.plan_detail END
"""
_SERIES: Final = f"""
INSERT INTO series (series, study_instance_uid, patient, source, instances, planes, bytes,
    contents, plan_reason, plan_detail, findings)
VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?, ?, '[]') ON CONFLICT (series) DO UPDATE SET
    study_instance_uid = excluded.study_instance_uid, patient = excluded.patient,
    source = excluded.source, instances = excluded.instances, contents = excluded.contents,
    {KEEP_CONTESTED}
WHERE source = excluded.source OR plan_reason = 'source-missing'
"""  # noqa: S608 - constants


class RemotePlan:
    """Plans series that one archive has.

    A series that it names under two studies or two patients does not run. Nor does one that it
    names otherwise than it did when it was planned before, unless it is found to have only that,
    nor one that another source of the plan has of another study or patient.

    Parameters
    ----------
    plan
        Takes the series.
    source
        Name of the archive in the configuration.
    archive
        The archive itself.
    rules
        Of the site.
    hide
        With the key of the run.
    check
        Called while the archive is asked: what it raises ends the planning.
    """

    def __init__(
        self,
        plan: PlanFile,
        source: str,
        archive: RemoteArchive,
        rules: SeriesRules,
        hide: IdentityHash,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._source = source
        self._contested = contested_at(source)
        self._archive = archive
        self._search = NamedSearch(archive, check)
        self._rules = rules
        self._hide = hide
        self._check = check

    def found(self, query: SeriesQuery) -> int:
        """Plan what a query finds; gives how many series. Raises as the archive does.

        Series that were planned of the same archive before and are not found are not to run.
        """
        self._begin_selection()
        found = self._archive.find(query, self._check)
        count, doubtful = self._take(found, is_all_known=False)
        self._look_again(doubtful)
        self._leave_out_others("not found by the query of this plan")
        return count

    def listed(self, listed: dict[str, str], query: SeriesQuery) -> int:
        """Plan the series of a list; those that the archive does not have are coded.

        What the query does not find is asked for whatever it is, so that a plan says why.

        Parameters
        ----------
        listed
            Study Instance UIDs, which may be empty, by Series Instance UID.
        query
            What must hold beside.
        """
        self._begin_selection()
        met, count = self._take_listed(listed, query)
        unmet = {uid: study for uid, study in listed.items() if uid not in met}
        if unmet and query != _ANYTHING:
            others, number = self._take_others(unmet, query)
            count += number
            unmet = {uid: study for uid, study in unmet.items() if uid not in others}
        self._leave_out_others("not listed, or not in the archive any more")
        self._refuse(unmet, Reason.NOT_SELECTED, Reason.SOURCE_MISSING, _GONE)
        missing(self._plan, self._source, unmet)
        return count + len(unmet)

    def _take_listed(self, listed: dict[str, str], query: SeriesQuery) -> tuple[set[str], int]:
        """Plan what a query finds of a list, in the studies that it names; gives which."""
        all_met: set[str] = set()
        count = 0
        doubtful: _Studies = {}
        for some in uids_at_once(list(listed)):
            studies = {uid: {listed[uid]} - {""} for uid in some}
            found = self._search.find(replace(query, series_instance_uids=some), studies)
            keys = {(each.series_instance_uid, each.study_instance_uid) for each in found}
            met = {uid for uid in some if listed[uid] and (uid, listed[uid]) in keys}
            met |= {uid for uid, _ in keys if listed.get(uid) == ""}
            number, doubts = self._take(
                (each for each in found if each.series_instance_uid in met), is_all_known=False
            )
            all_met |= met
            count += number
            doubtful |= doubts
        self._look_again(doubtful)
        return all_met, count

    def _take_others(self, unmet: dict[str, str], query: SeriesQuery) -> tuple[set[str], int]:
        """Plan, not to run, what the archive has of a list and the query does not find.

        One that looks for series in studies and days only is asked for what has no known study
        by the query again, of any modality.
        """
        others: set[str] = set()
        count = 0
        placed = [uid for uid, study in unmet.items() if study]
        elsewhere = [uid for uid, study in unmet.items() if not study]
        for some in (*uids_at_once(placed), *uids_at_once(elsewhere)):
            asked = {uid: unmet[uid] for uid in some}
            for wider in (_ANYTHING, replace(query, modalities=())):
                try:
                    met, number = self._take_listed(asked, wider)
                except PermanentError as error:
                    if error.reason not in (Reason.SOURCE_REFUSED, Reason.SOURCE_MISSING):
                        raise
                    continue
                others |= met
                count += number
                break
            self._refuse(some, None, Reason.NOT_SELECTED, _OUTSIDE)
        return others, count

    def _refuse(
        self, series: Iterable[str], was: Reason | None, reason: Reason, detail: str
    ) -> None:
        """Let series of this archive not run that are as they were said to be."""
        with self._plan.write() as connection:
            connection.executemany(
                "UPDATE series SET plan_reason = ?, plan_detail = ?"
                " WHERE series = ? AND source = ? AND plan_reason IS ?",
                [(reason, detail, uid, self._source, was) for uid in series],
            )

    def _look_again(self, doubtful: _Studies) -> None:
        """Ask for series that were planned otherwise before, whatever the query was."""
        for some in uids_at_once(list(doubtful)):
            query = SeriesQuery(series_instance_uids=some, modalities=())
            self._take(self._search.find(query, doubtful), is_all_known=True)

    def _begin_selection(self) -> None:
        with self._plan.write() as connection:
            for table, name in ((_SELECTED, "selected"), (_CONTESTED, "contested")):
                connection.execute(table)
                connection.execute(f"DELETE FROM temp.{name}")  # noqa: S608 - constants

    def _leave_out_others(self, detail: str) -> None:
        """What was planned of this archive before and was not named now is not to run.

        What it has of another source as that one has it, or not any more, is for that one to say.
        """
        agreed = "plan_detail = ? AND series NOT IN (SELECT series FROM temp.contested)"
        with self._plan.write() as connection:
            connection.execute(
                f"INSERT OR IGNORE INTO unexamined SELECT series FROM series WHERE {agreed}"  # noqa: S608
                " AND source = ?",
                (self._contested, FILES),
            )
            connection.execute(
                f"UPDATE series SET plan_detail = 'plan what it is of once more' WHERE {agreed}",  # noqa: S608
                (self._contested,),
            )
            connection.execute(
                "UPDATE series SET plan_reason = ?, plan_detail = ? WHERE source = ?"
                " AND (plan_reason IS NULL OR plan_detail IN (?, ?))"
                " AND series NOT IN (SELECT series FROM temp.selected)",
                (Reason.NOT_SELECTED, detail, self._source, _GONE, _OUTSIDE),
            )

    def _take(self, found: Iterable[FoundSeries], is_all_known: bool) -> tuple[int, _Studies]:
        """Plan series; gives how many, and those that the plan knows otherwise, with studies.

        Parameters
        ----------
        is_all_known
            The archive was asked for everything that it has under their UIDs.
        """
        count = 0
        doubtful: _Studies = {}
        nameless: Counter[str] = Counter()
        series = iter(found)
        with self._plan.write() as connection:
            connection.execute(_MET)
            connection.execute("DELETE FROM temp.met")
        while rows := list(islice(series, _ROWS_AT_ONCE)):
            count += len(rows)
            with self._plan.write() as connection:
                for each in rows:
                    if not each.is_named:
                        connection.execute(_SERIES, self._nameless_row(each, nameless))
                        continue
                    uid = each.series_instance_uid
                    connection.execute("INSERT OR IGNORE INTO temp.selected VALUES (?)", (uid,))
                    hidden = HiddenPatient.of(each.patient, self._hide)
                    self._contest(connection, each, hidden)
                    is_first, is_mixed, patient = _met(connection, each, hidden)
                    known = self._doubted(connection, each, hidden) if is_first else None
                    if known is not None and not is_all_known:
                        doubtful[uid] = {known} - {""}
                    if uid in doubtful:
                        is_mixed = True
                        doubtful[uid] |= {each.study_instance_uid} - {""}
                    connection.execute(_SERIES, self._row(each, patient, is_mixed))
        return count, doubtful

    def _contest(
        self, connection: sqlite3.Connection, found: FoundSeries, hidden: HiddenPatient
    ) -> None:
        """Let a series not run that the plan has of another source and of somebody else."""
        uid = found.series_instance_uid
        row = connection.execute(
            "SELECT source, study_instance_uid, patient FROM series WHERE series = ?"
            " AND source <> ? AND plan_reason IS NOT 'source-missing'",
            (uid, self._source),
        ).fetchone()
        if row is None or not is_another(row, self._source, found.study_instance_uid, hidden):
            return
        connection.execute("INSERT OR IGNORE INTO temp.contested VALUES (?)", (uid,))
        connection.execute(
            "UPDATE series SET plan_reason = ?, plan_detail = ? WHERE series = ?",
            (Reason.MIXED_IDENTITY, self._contested, uid),
        )

    def _doubted(
        self, connection: sqlite3.Connection, found: FoundSeries, hidden: HiddenPatient
    ) -> str | None:
        """The study that the plan knows of a series, if that or the patient was another one.

        So is what it knows to be of two; None: it has no doubt.
        """
        row = connection.execute(
            "SELECT source, study_instance_uid, patient, plan_reason FROM series"
            " WHERE series = ? AND source = ?",
            (found.series_instance_uid, self._source),
        ).fetchone()
        if row is None:
            return None
        is_in_doubt = row["plan_reason"] == Reason.MIXED_IDENTITY or is_another(
            row, self._source, found.study_instance_uid, hidden
        )
        return str(row["study_instance_uid"]) if is_in_doubt else None

    def _row(
        self, found: FoundSeries, patient: HiddenPatient, is_mixed: bool
    ) -> tuple[object, ...]:
        reason, detail = _refusal(found, self._rules)
        if is_mixed:
            reason = Reason.MIXED_IDENTITY
            detail = "the archive has it under two studies or patients"
        count = found.instance_count or 0
        facts = [found.study_instance_uid, found.series_instance_uid, count]
        return (
            found.series_instance_uid,
            found.study_instance_uid,
            patient.to_json() if patient.is_told else "",
            self._source,
            count,
            hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
            reason,
            detail,
        )

    def _nameless_row(self, found: FoundSeries, met: Counter[str]) -> tuple[object, ...]:
        """What nobody can ask for by its UID: it counts, by what else it says, and does not run."""
        said = asdict(replace(found, instance_count=None))  # a study may grow
        word = self._hide.word(json.dumps(said, sort_keys=True, default=str))
        met[word] += 1
        hidden = HiddenPatient.of(found.patient, self._hide)
        study = found.study_instance_uid
        return (
            f"without-uid-in-{self._source}-{word}-{met[word]}",
            study if is_valid_uid(study) else "",
            hidden.to_json() if hidden.is_told else "",
            self._source,
            found.instance_count or 0,
            "",
            Reason.MISSING_IDENTITY,
            "the archive lists it without a valid UID",
        )


def is_another(row: sqlite3.Row, source: str, study: str, patient: HiddenPatient) -> bool:
    """Whether a source has a series in another study, or of another patient, than a row says.

    What is not told is not compared; of files the plan keeps the Patient ID alone.
    """
    known = HiddenPatient.from_json(row["patient"])
    if FILES in (row["source"], source):
        known, patient = HiddenPatient(known.patient_id), HiddenPatient(patient.patient_id)
    return row["study_instance_uid"] not in ("", study) or known.differs(patient)


def contested_at(source: str) -> str:
    """Detail of a series that a source has of another study or patient than another one."""
    return f"{_ALSO_AT}{source!r}, of another study or patient"


def _met(
    connection: sqlite3.Connection, found: FoundSeries, hidden: HiddenPatient
) -> tuple[bool, bool, HiddenPatient]:
    """Whether the archive names a series the first time, whether otherwise, and its patient."""
    uid, study = found.series_instance_uid, found.study_instance_uid
    row = connection.execute("SELECT * FROM temp.met WHERE series = ?", (uid,)).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO temp.met VALUES (?, ?, ?, 0)", (uid, study, hidden.to_json())
        )
        return True, False, hidden
    known = HiddenPatient.from_json(row["patient"])
    is_mixed = bool(row["is_mixed"]) or row["study_instance_uid"] != study or known.differs(hidden)
    patient = known if known.is_told else hidden
    connection.execute(
        "UPDATE temp.met SET is_mixed = ?, patient = ? WHERE series = ?",
        (is_mixed, patient.to_json(), uid),
    )
    return False, is_mixed, patient


def _refusal(found: FoundSeries, rules: SeriesRules) -> tuple[Reason | None, str]:
    """Why a series is not fetched. What an archive does not say is looked at when it runs."""
    if found.modality not in ("CT", ""):
        return Reason.NOT_CT, f"Modality {found.modality[:16]!r}"
    classes = set(found.sop_classes)
    if classes and not classes.intersection(CT_SOP_CLASSES):
        return Reason.NOT_CT, "no SOP class of CT"
    count = found.instance_count
    may_be_multi_frame = not classes or classes.intersection(MULTI_FRAME_CT_SOP_CLASSES)
    if count is not None and count < rules.min_slices and not may_be_multi_frame:
        return Reason.TOO_FEW_SLICES, f"{count} instances, fewer than {rules.min_slices}"
    return None, ""
