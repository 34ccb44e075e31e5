"""The files of a job that a plan names: on a disk that this machine sees, or in a zip file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from dicom_seg.read.examination import SeriesIdentity
from inference.reasons import Reason
from pacs_bridge.archive.headers import unpack
from pacs_bridge.archive.hidden_patient import run_key
from pacs_bridge.archive.known_files import KnownFile
from pacs_bridge.archive.plan_file import PLAN_NAME, PlanFile
from pacs_bridge.archive.reading import modified_ns
from pacs_bridge.archive.series_book import NOT_TO_RUN
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.archive.zip_shelf import ZipShelf
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.job_source import earlier_results
from pacs_bridge.process import SeriesSource
from pacs_bridge.queue import JobClaim
from pacs_bridge.report import LeftOutInstance

#: What a disk or share says that is away, and not the file alone.
_AWAY: Final = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN,
                errno.ENODEV, errno.ENXIO)  # fmt: skip
#: Of one file, as a bad sector is, or what a service may not open.
_OF_THE_FILE: Final = (*_AWAY, errno.EACCES, errno.EPERM)
_ROOTS: Final = "roots"
_READ_BYTES: Final = 1 << 20
#: Detail of what a series has beside the files that are read.
FURTHER_FILE: Final = "a further file of the archive"


@dataclass(frozen=True, slots=True)
class PlannedFiles:
    """What a plan knows of the files of one series."""

    roots: tuple[Path, ...]  #: of the archive, that hold the files
    files: tuple[KnownFile, ...]
    set_aside: tuple[LeftOutInstance, ...]
    identity: SeriesIdentity  #: the patient as a keyed hash
    key: bytes  #: of that hash


class PlanSources:
    """The files of series as a plan found them; a ``JobSources``, for any number of threads.

    Parameters
    ----------
    run_folder
        Holds the plan.
    data_folder
        Of the bridge: earlier results are named relative to it.
    settings
        Of this process; None: they are those of the run.
    """

    def __init__(
        self, run_folder: Path, data_folder: Path, settings: WantedSettings | None = None
    ) -> None:
        self._run_folder = run_folder
        self._data_folder = data_folder
        self._settings = settings
        self._zips = ZipShelf()

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``: as ``planned_files`` and ``fetch_planned``.

        Raises
        ------
        TransientError
            ``wrong-recipe``, too, if the run wants other settings than this process has.
        """
        if self._settings is not None:
            self._settings.check(self._run_folder, claim.request)
        planned = planned_files(self._run_folder, claim.request.series_instance_uid)
        return fetch_planned(planned, claim, self._data_folder, scratch, check, self._zips)


def planned_files(run_folder: Path, series: str) -> PlannedFiles:
    """What the plan in the folder of a run knows of a series.

    Raises
    ------
    TransientError
        ``source-unreachable`` while that folder is away, or the series is planned again.
    PermanentError
        ``source-missing`` if the plan has no files of it; with its reason, if it is not to run.
    """
    if not (run_folder / PLAN_NAME).exists():
        raise TransientError(Reason.SOURCE_UNREACHABLE, f"no {PLAN_NAME} in the folder of the run")
    with PlanFile(run_folder) as plan, plan.snapshot():  # it may be made anew beside
        _wait_for_planner(plan, series)
        _check_selected(plan, series)
        identity = _planned_identity(plan, series)
        files = _files(plan, series)
        set_aside = _set_aside(plan, series)
        roots = _roots_of(files, frozenset(plan.setting(_ROOTS) or ()))
    if not files or identity is None:
        raise PermanentError(Reason.SOURCE_MISSING, "the plan has no files of the series")
    return PlannedFiles(roots, files, set_aside, identity, run_key(run_folder))


def fetch_planned(
    planned: PlannedFiles,
    claim: JobClaim,
    data_folder: Path,
    scratch: Path,
    check: Callable[[], None],
    zips: ZipShelf,
) -> SeriesSource:
    """See ``JobSources.fetch``: looks whether the files are those that were planned.

    What ``zips`` holds is not read again; ``data_folder`` is that of the bridge.

    Raises
    ------
    TransientError
        ``source-unreachable`` while the disk or share is away; ``source-incomplete`` if it is
        there, and a file cannot be read. So does ``look_again`` of what is given.
    PermanentError
        ``source-missing`` if a file is gone or another one: plan again.
    """
    with _faults_told(planned.roots):
        paths = _on_disk(planned.files, scratch, check, zips)
    return SeriesSource(
        paths=paths,
        created=claim.created,
        revision=claim.request.revision,
        predecessors=earlier_results(claim.predecessors, data_folder),
        set_aside=planned.set_aside,
        confirm=_Confirmation(planned.identity, IdentityHash(planned.key)),
        look_again=_SecondLook(planned, check),
    )


@dataclass(frozen=True, slots=True)
class _SecondLook:
    """Says what it means that a planned file could not be read when its turn came.

    Its header was read when it was planned, and the file is the same: what fails is the disk or
    share, or what this process may do there. What was taken out of a zip file is whole.
    """

    planned: PlannedFiles
    check: Callable[[], None]

    def __call__(self) -> None:
        files = [file for file in self.planned.files if not file.is_zip]
        with _faults_told(self.planned.roots):
            for file in files:
                self.check()
                with _unchanged(file).open("rb") as stream:
                    while stream.read(_READ_BYTES):
                        pass
        if files:
            raise TransientError(Reason.SOURCE_INCOMPLETE, "a planned file could not be read")


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """Looks whether what was read is of the patient, study and series that were planned.

    Size and time of a file tell no swap of two that have both in common.
    """

    planned: SeriesIdentity  #: the patient as a keyed hash
    hide: IdentityHash

    def __call__(self, read: SeriesIdentity) -> None:
        hidden = replace(read, patient_id=self.hide.word(read.patient_id))
        if hidden != self.planned:
            raise PermanentError(
                Reason.SOURCE_MISSING,
                "the files are of another patient, study or series than was planned: plan again",
            )


def _wait_for_planner(plan: PlanFile, series: str) -> None:
    with plan.read() as connection:
        row = connection.execute("SELECT 1 FROM unexamined WHERE series = ?", (series,)).fetchone()
    if row is not None:
        raise TransientError(
            Reason.SOURCE_UNREACHABLE, "the series is being planned again; if no plan runs: plan"
        )


def _check_selected(plan: PlanFile, series: str) -> None:
    with plan.read() as connection:
        row = connection.execute(
            "SELECT plan_reason FROM series WHERE series = ? AND plan_reason IS NOT NULL",
            (series,),
        ).fetchone()
    if row is not None:
        raise PermanentError(Reason(row[0]), NOT_TO_RUN)


def _planned_identity(plan: PlanFile, series: str) -> SeriesIdentity | None:
    """Of a series as its headers said; None if no file of it is known."""
    with plan.read() as connection:
        row = connection.execute(
            "SELECT p.instances, f.place FROM parts p JOIN files f ON f.part = p.id"
            " WHERE p.series = ? AND f.reason IS NULL ORDER BY p.id, f.place LIMIT 1",
            (series,),
        ).fetchone()
    if row is None:
        return None
    return unpack(row["instances"], {row["place"]: Path()})[row["place"]].identity


def _files(plan: PlanFile, series: str) -> tuple[KnownFile, ...]:
    with plan.read() as connection:
        rows = connection.execute(
            "SELECT f.folder, d.path, d.is_zip, f.name, f.size, f.modified_ns"
            " FROM parts p JOIN files f ON f.part = p.id JOIN folders d ON d.id = f.folder"
            " WHERE p.series = ? AND f.reason IS NULL ORDER BY d.path, f.name",
            (series,),
        ).fetchall()
    return tuple(KnownFile(*row) for row in rows)


def _set_aside(plan: PlanFile, series: str) -> tuple[LeftOutInstance, ...]:
    with plan.read() as connection:
        rows = connection.execute(
            "SELECT f.sop_instance_uid, f.reason FROM parts p JOIN files f ON f.part = p.id"
            " WHERE p.series = ? AND f.reason IS NOT NULL ORDER BY f.sop_instance_uid",
            (series,),
        ).fetchall()
    return tuple(
        LeftOutInstance("", uid, None, Reason(reason), FURTHER_FILE) for uid, reason in rows
    )


def _on_disk(
    files: Sequence[KnownFile], scratch: Path, check: Callable[[], None], zips: ZipShelf
) -> tuple[Path, ...]:
    paths: list[Path] = []
    for is_zip, group in groupby(files, key=lambda file: file.folder if file.is_zip else b""):
        check()
        if is_zip:
            paths += _unzipped(list(group), scratch, check, zips)
        else:
            paths += [_unchanged(file) for file in group]
    return tuple(paths)


def _unchanged(file: KnownFile) -> Path:
    path = file.path
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise PermanentError(Reason.SOURCE_MISSING, "a planned file is gone") from None
    if (status.st_size, modified_ns(status)) != (file.size_bytes, file.modified_ns):
        raise PermanentError(Reason.SOURCE_MISSING, "a file has changed since it was planned")
    return path


def _unzipped(
    files: Sequence[KnownFile], scratch: Path, check: Callable[[], None], zips: ZipShelf
) -> list[Path]:
    folder = scratch / str(files[0].folder_id)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    try:
        with zips.opened(Path(os.fsdecode(files[0].folder))) as members:
            for file in files:
                if members.checksum(int(file.name)) != file.modified_ns:
                    raise PermanentError(
                        Reason.SOURCE_MISSING, "a zip file has changed since it was planned"
                    )
                path = folder / f"{int(file.name):06d}"
                members.extract(int(file.name), path, check)
                paths.append(path)
    except FileNotFoundError:
        raise PermanentError(Reason.SOURCE_MISSING, "a planned zip file is gone") from None
    return paths


@contextmanager
def _faults_told(roots: Sequence[Path]) -> Iterator[None]:
    """Turn what the file system says into what it means for the job."""
    try:
        yield
    except OSError as error:
        raise _told(error, roots) from error
    except PermanentError as error:
        if error.reason is Reason.SOURCE_MISSING and _are_away(roots):
            raise _unreachable() from error
        raise


def _told(error: OSError, roots: Sequence[Path]) -> Exception:
    if _are_away(roots):
        return _unreachable()
    if error.errno in _OF_THE_FILE:
        return TransientError(Reason.SOURCE_INCOMPLETE, f"a planned file: {error.strerror}")
    return error  # of the scratch folder, such as a full disk


def _roots_of(files: Sequence[KnownFile], roots: frozenset[str]) -> tuple[Path, ...]:
    """The roots that hold some files; of a file that was named itself, the folder of it."""
    named = [file.path for file in files if not file.is_zip and str(file.path) in roots]
    holding = {path.parent for path in named}
    for folder, is_zip in {(file.folder, file.is_zip) for file in files}:
        place = Path(os.fsdecode(folder))
        if is_zip and str(place) in roots:
            holding.add(place.parent)
        tree = place.parents if is_zip else (place, *place.parents)
        holding.update(each for each in tree if str(each) in roots)
    return tuple(sorted(holding))


def _are_away(roots: Sequence[Path]) -> bool:
    """Whether a root of the archive cannot be seen, or is as empty as where it is mounted."""
    try:
        return any(
            not root.exists() or (root.is_dir() and not any(root.iterdir())) for root in roots
        )
    except OSError:
        return True


def _unreachable() -> TransientError:
    return TransientError(Reason.SOURCE_UNREACHABLE, "the folder of the archive is away")
