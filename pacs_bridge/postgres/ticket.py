"""Tickets: what a worker elsewhere must know of a job beside its ids.

A ticket is a JSON file in the shared data folder, written once for each time that a job is handed
over. It lists the files of a series that was received here, what the plan of an archive run knows
of it, and the results that the new one is to replace; so no worker elsewhere opens the ledger or
a plan, which would be SQLite on a network disk.
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
from pacs_bridge.archive.plan_source import fetch_planned
from pacs_bridge.archive.zip_shelf import ZipShelf
from pacs_bridge.config.section import Section
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.job_source import JobSources, SpoolSources
from pacs_bridge.ledger.instances import SetAside
from pacs_bridge.ledger.sources import SpooledInstance
from pacs_bridge.postgres.fence import ledger_fence_of
from pacs_bridge.postgres.payload import Digest, RelativePath, ResultRow, Uid, parsed_json
from pacs_bridge.postgres.planned_ticket import PlanRow, no_plan
from pacs_bridge.process import SeriesSource
from pacs_bridge.queue import SPOOL, JobClaim, JobRequest
from pacs_bridge.sources.configured_sources import ExpectedSeries


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
    plan: PlanRow | None = None


class TicketBook:
    """The tickets of a bridge.

    Parameters
    ----------
    data_folder
        Of the bridge, as it is mounted here.
    plan_of
        What a plan knows of the series of a job; raises as ``PlanLookup.of``.
    """

    def __init__(
        self, data_folder: Path, plan_of: Callable[[JobRequest], PlanRow | None] = no_plan
    ) -> None:
        self.data_folder = data_folder
        self._folder = data_folder / "tickets"
        self._plan_of = plan_of

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
        BridgeError
            If a plan does not say now, or not any more, what is wanted of it.
        """
        plan = self._plan_of(claim.request)
        row = {
            "format": 1,
            "job": claim.job_id,
            "instances": [
                {
                    "sop_instance_uid": each.sop_instance_uid,
                    "path": each.path.relative_to(self.data_folder).as_posix(),
                    "digest": each.digest,
                    "data_offset_bytes": each.data_offset_bytes,
                    "size_bytes": each.size_bytes,
                }
                for each in instances
            ],
            "set_aside": [
                {
                    "sop_instance_uid": each.sop_instance_uid,
                    "path": each.path.relative_to(self.data_folder).as_posix(),
                    "reason": each.reason.value,
                }
                for each in set_aside
            ],
            "predecessors": [asdict(each) for each in claim.predecessors],
            "plan": None if plan is None else plan.model_dump(mode="json"),
        }
        path = self._path(claim.job_id, claim.fence)
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.unlink(missing_ok=True)
        # the key of a plan is read by nobody but who reads that of the bridge
        partial.touch(mode=0o666 if plan is None else 0o600)
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
    tickets
        Of the bridge.
    elsewhere
        Gets the files of jobs that their tickets do not list.
    is_here
        Raises ``TransientError`` if the data folder is not mounted: then nothing is missing for
        good.
    """

    def __init__(
        self, tickets: TicketBook, elsewhere: JobSources, is_here: Callable[[], object]
    ) -> None:
        self._tickets = tickets
        self._elsewhere = elsewhere
        self._is_here = is_here
        self._zips = ZipShelf()

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``."""
        folder = self._tickets.data_folder
        try:
            ticket = self._tickets.read(claim)
            known = replace(claim, predecessors=tuple(each.file() for each in ticket.predecessors))
            if claim.request.source == SPOOL:
                instances = _TicketInstances(ticket, folder)
                return SpoolSources(instances, folder).fetch(known, scratch, check)
            planned = None if ticket.plan is None else ticket.plan.planned_files()
            if planned is not None:
                return fetch_planned(planned, known, folder, scratch, check, self._zips)
            return self._elsewhere.fetch(known, scratch, check)
        except PermanentError:
            self._is_here()
            raise


class TicketPlans:
    """What was planned of the series of jobs that were handed over; a ``SeriesPlans``.

    Parameters
    ----------
    tickets
        Of the bridge.
    """

    def __init__(self, tickets: TicketBook) -> None:
        self._tickets = tickets

    def expected(self, claim: JobClaim, /) -> ExpectedSeries | None:
        """See ``SeriesPlans.expected``."""
        plan = self._tickets.read(claim).plan
        planned = None if plan is None else plan.planned_identity()
        return None if planned is None else planned.expected()


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
