"""The ledger: one SQLite file that knows every instance, series, job and delivery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pacs_bridge.clock import Clock, SystemClock
from pacs_bridge.ledger.associations import AssociationBook
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.deliveries import DeliveryBox
from pacs_bridge.ledger.home import LedgerHome
from pacs_bridge.ledger.instances import InstanceBook
from pacs_bridge.ledger.jobs import JobQueue
from pacs_bridge.ledger.leftovers import Leftovers
from pacs_bridge.ledger.refusals import RefusalBook
from pacs_bridge.ledger.retention import Retention
from pacs_bridge.ledger.series import SeriesBook
from pacs_bridge.ledger.steering import Steering
from pacs_bridge.ledger.views import LedgerView


@dataclass(frozen=True, slots=True)
class Ledger:
    """The parts of the ledger, on one file. Processes share the file, never this object."""

    database: Database
    associations: AssociationBook
    instances: InstanceBook
    refusals: RefusalBook
    series: SeriesBook
    jobs: JobQueue  #: the ``Queue`` of this machine
    outbox: DeliveryBox  #: the ``Outbox`` of this machine
    steering: Steering
    retention: Retention
    leftovers: Leftovers
    view: LedgerView

    @classmethod
    def open(
        cls,
        path: Path,
        clock: Clock | None = None,
        busy_timeout_s: float = 30.0,
        max_failures: int = 3,
        home: LedgerHome | None = None,
    ) -> Ledger:
        """Open the ledger at ``path`` in the data folder, and make it when it is not there.

        Raises
        ------
        TransientError
            If the file cannot be opened now.
        PermanentError
            If it is damaged, of a later version of this program, or another machine's.
        """
        database = Database(path, clock or SystemClock(), busy_timeout_s, home=home)
        return cls(
            database=database,
            associations=AssociationBook(database),
            instances=InstanceBook(database),
            refusals=RefusalBook(database),
            series=SeriesBook(database),
            jobs=JobQueue(database, max_failures),
            outbox=DeliveryBox(database),
            steering=Steering(database),
            retention=Retention(database),
            leftovers=Leftovers(database),
            view=LedgerView(database),
        )

    def presume_dead(self, process: str) -> None:
        """End all leases of a process that died."""
        self.jobs.presume_dead(process)
        self.outbox.presume_dead(process)

    def give_back(self, process: str) -> None:
        """End all leases of a process that we ended: none of its jobs is to blame."""
        self.jobs.give_back(process)
        self.outbox.presume_dead(process)

    def close(self) -> None:
        """Close the file."""
        self.database.close()
