"""Jobs of an archive run, as a bridge hands them over: its plan is nobody else's trouble."""

from __future__ import annotations

import pytest
from queue_bench import LEASE_S, request_of

from inference.reasons import Reason
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.postgres.planned_ticket import PlanRow
from pacs_bridge.postgres.ticket import TicketBook
from pacs_bridge.queue import JobRequest, State

AWAY = TransientError(Reason.SOURCE_UNREACHABLE, "the folder of the run is away")
GONE = PermanentError(Reason.SOURCE_MISSING, "the plan has no files of the series")


def plan_with(trouble: BridgeError):
    """What a plan says where one of its series is troubled."""

    def plan_of(request: JobRequest) -> PlanRow | None:
        if request.series_instance_uid == "1.1":
            raise trouble
        return None

    return plan_of


@pytest.mark.parametrize(("trouble", "state"), [(AWAY, State.RETRY), (GONE, State.DEAD)])
def test_what_a_plan_does_not_say_is_the_trouble_of_its_own_job_alone(site, trouble, state):
    site.book = TicketBook(site.folder, plan_with(trouble))
    site.new_dispatcher()
    troubled = site.ledger.jobs.submit(request_of("1.1", source="old"))
    other = site.ledger.jobs.submit(request_of("1.2", source="old"))

    site.dispatcher.step()

    view = site.job(troubled)
    assert (view.state, view.reason) == (state, trouble.reason)
    assert site.deaths(troubled) == 0
    assert site.bench.queue.claim("w", LEASE_S).job_id == other
    assert site.bench.queue.claim("w", LEASE_S) is None


def test_a_job_waits_until_its_plan_can_be_read(site):
    site.book = TicketBook(site.folder, plan_with(AWAY))
    site.new_dispatcher()
    job_id = site.ledger.jobs.submit(request_of("1.1", source="old"))
    site.dispatcher.step()
    site.book = TicketBook(site.folder)
    site.new_dispatcher()
    site.clock.pass_s(11)
    site.dispatcher.step()

    assert site.bench.queue.claim("w", LEASE_S).job_id == job_id
