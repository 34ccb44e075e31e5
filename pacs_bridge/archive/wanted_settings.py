"""Whether who works an archive's job off has the settings that its run wants.

A service reads its configuration when it starts, an archive run when it is called: what is made
with other settings must not be booked as made with these.
"""

from __future__ import annotations

from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PLAN_NAME, PlanFile
from pacs_bridge.archive.recipe import settings_digest
from pacs_bridge.archive.series_book import LEDGER, RECIPE_SETTINGS
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.glance import LedgerGlance
from pacs_bridge.queue import JobRequest


class WantedSettings:
    """The settings of one process, against those of plans. For any number of threads.

    Parameters
    ----------
    config
        Of the process, as it was when it started.
    """

    def __init__(self, config: BridgeConfig) -> None:
        self._ledger_path = config.ledger_path
        self._ledger_id = ""
        self._digests = {route.name: settings_digest(config, route) for route in config.routes}

    def check(self, run_folder: Path, request: JobRequest) -> None:
        """Look whether a job that was made of a plan is to be made as its route says here.

        Raises
        ------
        TransientError
            ``wrong-recipe`` if it is not; what the plan does not tell is not looked at.
        """
        wanted = self._wanted(run_folder, request)
        here = self._digests.get(request.route, "")
        if wanted and here and wanted != here:
            raise TransientError(
                Reason.WRONG_RECIPE,
                f"route {request.route!r} had other settings when this process started than when"
                " the archive run did: start the service again",
            )

    def are_jobs_here(self, plan: PlanFile) -> bool:
        """Whether the jobs of a plan are in the ledger of this process, as far as it says.

        Else a revision of the same number is another job.
        """
        ledger_id = plan.setting(LEDGER)
        return ledger_id is None or ledger_id == self._own_ledger()

    def _wanted(self, run_folder: Path, request: JobRequest) -> str:
        if not (run_folder / PLAN_NAME).exists():
            return ""
        with PlanFile(run_folder) as plan:
            if not self.are_jobs_here(plan):
                return ""
            with plan.read() as connection:
                row = connection.execute(
                    "SELECT done_recipe FROM series WHERE series = ? AND revision = ?",
                    (request.series_instance_uid, request.revision),
                ).fetchone()
            settings = plan.setting(RECIPE_SETTINGS) or {}
        return "" if row is None else str(settings.get(row["done_recipe"], ""))

    def _own_ledger(self) -> str:
        """The ledger that the jobs of this process are in."""
        if not self._ledger_id:
            with LedgerGlance(self._ledger_path, is_in_use=True).read() as connection:
                row = connection.execute("SELECT ledger_id FROM machine").fetchone()
            self._ledger_id = str(row[0])
        return self._ledger_id
