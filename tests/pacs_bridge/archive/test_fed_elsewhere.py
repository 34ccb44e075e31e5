"""A plan that is fed to a service whose workers are many, and on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.archive.accounts import account_of
from pacs_bridge.archive.feeder import Feeder, FeedOrder
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.postgres.fence import first_fence
from pacs_bridge.queue import DISPATCHER, JobClaim
from pacs_bridge.report import Ending, SeriesNames, SeriesReport, SoftwareReport
from pacs_bridge.stopwatch import Stage
from pacs_bridge.worker_job import folder_of

RECIPE = Recipe("synthetic-3mm", "c" * 64, "first recipe")
LEASE_S = 60.0
AT_A_TIME = 4


class Fed:
    """A service that is fed with the series of a plan; its workers are the test."""

    def __init__(self, plan: PlanFile, data_folder: Path, clock) -> None:
        self.plan = plan
        self.data_folder = data_folder
        self.ledger = Ledger.open(data_folder / "ledger.sqlite", clock)
        order = FeedOrder("all", ("archive",), RECIPE, "old", most_waiting=AT_A_TIME)
        self.feeder = Feeder(SeriesBook(plan), self.ledger, order, data_folder, clock)

    def claims(self, most: int) -> list[JobClaim]:
        """So many, if there are, as a dispatcher or free workers take them."""
        return list(self.ledger.jobs.claim_some(DISPATCHER, LEASE_S, most))

    def report(self, claim: JobClaim, fence: int, seconds: float) -> None:
        """What a worker writes of a series that is not fit."""
        folder = self.data_folder / "results" / folder_of(claim.job_id, fence)
        folder.mkdir(parents=True)
        SeriesReport(
            created=datetime(2026, 3, 1, tzinfo=UTC),
            ending=Ending("skip", Reason.EMPTY_RESULT, ""),
            series=SeriesNames("", claim.request.series_instance_uid, claim.request.revision),
            software=SoftwareReport("1", "3", "Linux", {}),
            model=None,
            parameters={},
            stacks=(),
            left_out=(),
            timings_s={Stage.READ: seconds},
            peak_memory_bytes=0,
        ).write(folder)


@pytest.fixture
def fed(tree, plan_of, make_config, clock) -> Iterator[Callable[[int], Fed]]:
    made: list[Fed] = []

    def make(count: int) -> Fed:
        for number in range(count):
            tree.add("run", f"{number}")
        made.append(Fed(plan_of(tree.root).plan, make_config().data_folder, clock))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()


def test_workers_of_a_service_are_fed_whatever_their_number(fed):
    service = fed(12)
    in_hand = []
    for _ in range(4):
        service.feeder.step()
        in_hand += service.claims(8 - len(in_hand))

    assert len(in_hand) == 8
    assert service.feeder.step().waiting == 8 + AT_A_TIME
    assert service.feeder.step().waiting == 8 + AT_A_TIME


def test_what_nobody_takes_is_not_heaped_up(fed):
    service = fed(12)

    assert {service.feeder.step().waiting for _ in range(3)} == {AT_A_TIME}


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_what_a_worker_says_of_a_series_that_is_not_fit_is_in_the_account(fed, is_elsewhere):
    service = fed(1)
    service.feeder.step()
    (claim,) = service.claims(1)
    fence = first_fence(claim.fence) + 5 if is_elsewhere else claim.fence
    service.report(claim, first_fence(claim.fence - 1) + 9, 99.0)  # of an earlier time
    service.report(claim, fence, 2.5)
    service.ledger.jobs.skip(claim, Reason.EMPTY_RESULT, "")

    assert service.feeder.step().is_over
    assert account_of(service.plan).seconds == {"read": 2.5}
