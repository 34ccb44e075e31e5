"""Leases that are timed by whoever looks at them."""

from __future__ import annotations

import pytest

from pacs_bridge.postgres.watch import Lease, LeaseWatch

LEASE_S = 60.0


class Looking:
    """A watch, and the time that passes between its looks."""

    def __init__(self) -> None:
        self.now_s = 5.0
        self.watch = LeaseWatch(lambda: self.now_s)

    def after(self, seconds: float, *leases: Lease) -> tuple[Lease, ...]:
        """What has run out, so many seconds later."""
        self.now_s += seconds
        self.watch.look(leases)
        return self.watch.run_out(10)


@pytest.fixture
def looking() -> Looking:
    return Looking()


def lease(heartbeats: int = 0, fence: int = 1, job_id: int = 7) -> Lease:
    return Lease(job_id, fence, heartbeats, LEASE_S)


def test_a_lease_runs_out_when_it_has_stood_still_for_its_length(looking: Looking) -> None:
    assert looking.after(0, lease()) == ()
    assert [looking.after(15, lease()) for _ in range(4)] == [()] * 4
    assert looking.after(1, lease()) == (lease(),)


def test_a_heartbeat_and_another_fence_begin_anew(looking: Looking) -> None:
    looking.after(0, lease())
    assert [looking.after(15, lease(heartbeats=n // 3)) for n in range(20)] == [()] * 20
    assert [looking.after(15, lease(fence=n // 3)) for n in range(20)] == [()] * 20


def test_a_time_in_which_nobody_looked_counts_for_one_heartbeat_at_most(looking: Looking) -> None:
    looking.after(0, lease())
    assert [looking.after(1e6, lease()) for _ in range(4)] == [()] * 4
    assert looking.after(1, lease()) == (lease(),)


def test_a_lease_that_is_gone_is_forgotten(looking: Looking) -> None:
    for _ in range(4):
        looking.after(15, lease())
    looking.after(15)
    assert [looking.after(15, lease()) for _ in range(4)] == [()] * 4


def test_no_more_are_given_than_are_wanted(looking: Looking) -> None:
    leases = [lease(job_id=n) for n in range(20)]
    for _ in range(6):
        looking.after(15, *leases)
    assert set(looking.watch.run_out(3)) < set(leases)
    assert len(looking.watch.run_out(3)) == 3


def test_it_is_due_now_and_then(looking: Looking) -> None:
    assert looking.watch.is_due(LEASE_S)
    looking.after(0)
    assert not looking.watch.is_due(LEASE_S)
    looking.now_s += LEASE_S / 10
    assert looking.watch.is_due(LEASE_S)
