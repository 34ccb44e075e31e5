"""Tickets: what a worker elsewhere must know of a job beside its ids.

A ticket is a JSON file in the shared data folder, written once for each time that a job is handed
over. It lists the files of a series that was received here, and the results that the new one is
to replace; so no worker elsewhere opens the ledger, which would be SQLite on a network disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from inference.durable import flush
from inference.reasons import Reason
from pacs_bridge.config.section import Section
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.job_source import JobSources, SpoolSources
from pacs_bridge.ledger.instances import SetAside
from pacs_bridge.ledger.sources import SpooledInstance
from pacs_bridge.postgres.fence import ledger_fence_of
from pacs_bridge.postgres.payload import Digest, RelativePath, ResultRow, Uid, parsed_json
from pacs_bridge.process import SeriesSource
from pacs_bridge.queue import SPOOL, JobClaim, JobRequest


def needs_ticket(request: JobRequest) -> bool:
    """Whether a worker must know more of a job than its ids: files, or results to be replaced."""
    return request.source == SPOOL or request.revision > 1


class InstanceRow(Section):
    """One file of the series."""

    sop_instance_uid: Uid
    path: RelativePath
    digest: Digest
    data_offset_bytes: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(ge=0)]


class SetAsideRow(Section):
    """One instance of the series that lies in quarantine."""

    sop_instance_uid: Annotated[str, StringConstraints(max_length=128)]
    path: RelativePath
    reason: Reason


class Ticket(Section):
    """What a worker must know of one job; a key that is not known is a fault."""

    format: Literal[1] = 1
    job: int
    instances: tuple[InstanceRow, ...]
    set_aside: tuple[SetAsideRow, ...]
    predecessors: tuple[ResultRow, ...]


class TicketBook:
    """The tickets of a bridge.

    Parameters
    ----------
    data_folder
        Of the bridge, as it is mounted here.
    """

    def __init__(self, data_folder: Path) -> None:
        self._data_folder = data_folder
        self._folder = data_folder / "tickets"

    def write(
        self,
        claim: JobClaim,
        instances: Sequence[SpooledInstance],
        set_aside: Sequence[SetAside],
    ) -> None:
        """Write the ticket of a claim of the ledger; it is on the disk when this returns.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        row = {
            "format": 1,
            "job": claim.job_id,
            "instances": [
                {
                    "sop_instance_uid": each.sop_instance_uid,
                    "path": each.path.relative_to(self._data_folder).as_posix(),
                    "digest": each.digest,
                    "data_offset_bytes": each.data_offset_bytes,
                    "size_bytes": each.size_bytes,
                }
                for each in instances
            ],
            "set_aside": [
                {
                    "sop_instance_uid": each.sop_instance_uid,
                    "path": each.path.relative_to(self._data_folder).as_posix(),
                    "reason": each.reason.value,
                }
                for each in set_aside
            ],
            "predecessors": [asdict(each) for each in claim.predecessors],
        }
        path = self._path(claim.job_id, claim.fence)
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(row), encoding="utf-8")
        flush(partial)
        partial.replace(path)
        flush(self._folder)

    def read(self, claim: JobClaim) -> Ticket:
        """The ticket of a claim of the queue.

        Raises
        ------
        TransientError
            If the folder is away.
        PermanentError
            ``source-missing`` if there is none, ``bad-payload`` if it is not ours.
        """
        path = self._path(claim.job_id, ledger_fence_of(claim.fence))
        try:
            ticket = parsed_json(Ticket, path.read_bytes())
        except FileNotFoundError as error:
            raise PermanentError(Reason.SOURCE_MISSING, f"there is no {path.name}") from error
        except OSError as error:
            raise TransientError(
                Reason.QUEUE_UNAVAILABLE, f"{path.name}: {error.strerror}"
            ) from error
        if ticket.job != claim.job_id:
            raise PermanentError(Reason.BAD_PAYLOAD, f"{path.name} is of another job")
        return ticket

    def is_there(self, job_id: int, ledger_fence: int) -> bool:
        """Whether the ticket of a job is there that was handed over under this fence."""
        return self._path(job_id, ledger_fence).exists()

    def remove(self, job_id: int) -> None:
        """Delete the tickets of a job that is over."""
        for path in self._folder.glob(f"{job_id:08d}-*"):
            path.unlink(missing_ok=True)

    def keep_only(self, job_ids: set[int]) -> None:
        """Delete the tickets of all other jobs."""
        for path in self._folder.glob("*-*"):
            number = path.name.partition("-")[0]
            if number.isdigit() and int(number) not in job_ids:
                path.unlink(missing_ok=True)

    def _path(self, job_id: int, ledger_fence: int) -> Path:
        return self._folder / f"{job_id:08d}-{ledger_fence}.json"


class TicketSources:
    """The files of jobs that were handed over; a ``JobSources``.

    Parameters
    ----------
    data_folder
        Of the bridge, as it is mounted here.
    elsewhere
        Gets the files of jobs whose source is not the spool.
    is_here
        Raises ``TransientError`` if the data folder is not mounted: then nothing is missing for
        good.
    """

    def __init__(
        self, data_folder: Path, elsewhere: JobSources, is_here: Callable[[], object]
    ) -> None:
        self._data_folder = data_folder
        self._tickets = TicketBook(data_folder)
        self._elsewhere = elsewhere
        self._is_here = is_here

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``."""
        if not needs_ticket(claim.request):
            return self._elsewhere.fetch(claim, scratch, check)
        try:
            ticket = self._tickets.read(claim)
            known = replace(claim, predecessors=tuple(each.file() for each in ticket.predecessors))
            if claim.request.source != SPOOL:
                return self._elsewhere.fetch(known, scratch, check)
            instances = _TicketInstances(ticket, self._data_folder)
            return SpoolSources(instances, self._data_folder).fetch(known, scratch, check)
        except PermanentError:
            self._is_here()
            raise


class _TicketInstances:
    """What ``SpoolSources`` asks of the ledger, from a ticket."""

    def __init__(self, ticket: Ticket, data_folder: Path) -> None:
        self._ticket = ticket
        self._data_folder = data_folder

    def sources(self, _series: str, _revision: int) -> tuple[SpooledInstance, ...]:
        return tuple(
            SpooledInstance(
                sop_instance_uid=each.sop_instance_uid,
                path=self._data_folder / each.path,
                digest=each.digest,
                data_offset_bytes=each.data_offset_bytes,
                size_bytes=each.size_bytes,
            )
            for each in self._ticket.instances
        )

    def set_aside(self, _series: str) -> tuple[SetAside, ...]:
        return tuple(
            SetAside(each.sop_instance_uid, self._data_folder / each.path, each.reason)
            for each in self._ticket.set_aside
        )


def made_identity(data_folder: Path) -> str:
    """What tells the queue of this bridge from every other; made where it is not there.

    Raises
    ------
    TransientError
        If it cannot be read or written.
    """
    path = data_folder / _IDENTITY
    try:
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(os.urandom(16).hex(), encoding="ascii")
            flush(partial)
            partial.replace(path)
            flush(data_folder)
    except OSError as error:
        raise TransientError(Reason.QUEUE_UNAVAILABLE, f"{_IDENTITY}: {error.strerror}") from error
    return identity(data_folder)


def identity(data_folder: Path) -> str:
    """The same, of a folder that is mounted here.

    Raises
    ------
    TransientError
        If it is not there: the folder is not mounted, or not that of a bridge with a queue.
    """
    try:
        return (data_folder / _IDENTITY).read_text(encoding="ascii").strip()
    except OSError as error:
        raise TransientError(
            Reason.QUEUE_UNAVAILABLE,
            f"{_IDENTITY} cannot be read, is the shared data folder mounted? {error.strerror}",
        ) from error


_IDENTITY = "queue.id"
