"""An archive that can be searched for series and asked for their instances.

Two kinds stand behind it: DICOMweb (PS3.18) and DIMSE query/retrieve (PS3.4 annex C). What a
series needs beyond that, its route and its job, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.receive.header import is_valid_uid


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Which series to find; everything that is given must hold, an empty query finds all.

    Texts are matched as the archive does it: ``*`` and ``?`` are wildcards (PS3.4 C.2.2.2.4).
    """

    from_date: date | None = None  #: Study Date, this day or later
    to_date: date | None = None  #: Study Date, this day or earlier
    modalities: tuple[str, ...] = ("CT",)  #: of the series, any of these; empty: any
    study_instance_uids: tuple[str, ...] = ()  #: any of these; empty: any
    series_instance_uids: tuple[str, ...] = ()  #: any of these; empty: any
    study_description: str = ""
    series_description: str = ""
    body_part: str = ""  #: Body Part Examined
    patient_id: str = ""
    accession_number: str = ""

    def wants(self, found: FoundSeries) -> bool:
        """Whether a series is asked for, as far as can be seen: not all archives know all keys."""
        study, series = found.study_instance_uid, found.series_instance_uid
        return (
            (not self.modalities or found.modality in ("", *self.modalities))
            and study in (self.study_instance_uids or (study,))
            and series in (self.series_instance_uids or (series,))
            and (self.from_date is None or not "" < found.study_date < f"{self.from_date:%Y%m%d}")
            and (self.to_date is None or not found.study_date > f"{self.to_date:%Y%m%d}")
        )


@dataclass(frozen=True, slots=True)
class FoundPatient:
    """Whose series it is, as an archive says (PS3.3 C.7.1.1); no value is ever to be logged.

    What an archive does not tell is empty.
    """

    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)  #: Issuer of Patient ID
    name: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series that an archive has, and what it says of it without giving its instances.

    An archive need not say more than the UIDs: whatever it leaves out is empty or None.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    instance_count: int | None  #: Number of Series Related Instances (0020,1209)
    study_date: str  #: DA, YYYYMMDD
    facts: SeriesFacts  #: what routes select by; free text, never to be logged
    sop_classes: tuple[str, ...] = ()  #: SOP Classes in Study (0008,0062) or of the series
    patient: FoundPatient = FoundPatient()

    @property
    def key(self) -> tuple[str, str, FoundPatient]:
        """Study, series and patient: two patients may have got the same UIDs."""
        return self.study_instance_uid, self.series_instance_uid, self.patient

    @property
    def is_named(self) -> bool:
        """Whether it can be asked for: a study need not be named, but not by what is no UID."""
        study = self.study_instance_uid
        return is_valid_uid(self.series_instance_uid) and (not study or is_valid_uid(study))


class RemoteArchive(Protocol):
    """Finds series, and brings their files here. For any number of threads.

    What both methods raise is a ``BridgeError``. Transient: ``source-unreachable`` (no
    connection, no answer in time, a connection or association that broke, an archive that is
    overloaded), ``not-authorised`` with credentials from a file, which may be renewed,
    ``source-incomplete`` (fewer instances than the archive says that it has, or one that breaks
    off), ``disk-full``. Permanent: ``source-refused``, ``not-authorised`` without such a file,
    ``bad-answer``, ``too-large``, ``source-missing`` (the archive has no such series),
    ``conflicting-instance`` and ``corrupt-pixel-data`` (it has one instance twice with other
    bytes, or one with too few pixels).
    """

    def find(
        self, query: SeriesQuery, check: Callable[[], None] = lambda: None
    ) -> Iterator[FoundSeries]:
        """Every series that matches, each once, as the archive gives them.

        One series UID in two studies, or of two patients, is two series. What it lists without a
        valid UID comes too, and is not ``is_named``: to be accounted for, not to be asked for.

        An error may come after any number of series: then not all were found.

        Parameters
        ----------
        query
            Which.
        check
            Called between answers, and at least every second while waiting for one: what it
            raises ends the search.

        Raises
        ------
        TransientError, PermanentError
            See the class.
        """
        ...

    def fetch(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        folder: Path,
        check: Callable[[], None],
    ) -> tuple[Path, ...]:
        """All instances of a series as Part 10 files in ``folder``, which need not exist.

        The set is complete by the archive's own account, and each file was written whole; or
        there is an error. Names of files are made here. Files of an attempt that failed may be
        left behind: the folder belongs to this one series, and is the caller's to delete.

        Parameters
        ----------
        study_instance_uid, series_instance_uid
            As ``find`` gave them. Without a study UID the archive is asked for it.
        folder
            For these files alone.
        check
            Called between files and pieces of them, and at least every second while waiting for
            an answer: what it raises ends the fetch.

        Raises
        ------
        TransientError, PermanentError
            See the class.
        """
        ...

    def ask(self) -> str:
        """Whether the archive is there and lets us in; what it said, for people.

        Raises
        ------
        TransientError, PermanentError
            See the class.
        """
        ...


def checked_uid(uid: str) -> str:
    """A UID that may stand in an address or a key: not a list of them, nor a wildcard.

    Raises
    ------
    PermanentError
        ``bad-answer`` if it is none.
    """
    if not is_valid_uid(uid):
        raise PermanentError(Reason.BAD_ANSWER, "a UID that is none")
    return uid
