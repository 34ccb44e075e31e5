"""Jobs that overlap take no more memory than there is, and never wait for each other in a ring."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pacs_bridge.memory_ledger import MemoryLedger, MemoryShare
from pacs_bridge.pipeline import Lanes
from pacs_bridge.stopwatch import Stage

WAIT_S = 60.0


class HasToWaitError(Exception):
    """Raised in place of waiting."""


def at_once(is_let_in) -> None:
    if not is_let_in():
        raise HasToWaitError


class Machine:
    """Memory that is free for now."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.least = free
        self._lock = threading.Lock()
        self.ledger = MemoryLedger(lambda: self.free, look_interval_s=0.001)

    def share(self) -> MemoryShare:
        return MemoryShare(self.ledger, at_once)

    def take(self, size: int) -> None:
        with self._lock:
            self.free -= size
            self.least = min(self.least, self.free)


def test_a_job_that_is_alone_is_let_in_whatever_there_is() -> None:
    alone = Machine(free=10).share()

    with alone.stack():
        with alone.reading(100):
            pass
        with alone.computing(1000) as promised:
            assert promised == 0


def test_a_volume_is_read_ahead_when_the_network_before_it_was_let_in() -> None:
    machine = Machine(free=1000)
    first, second = machine.share(), machine.share()

    with first.stack():
        with first.reading(100), pytest.raises(HasToWaitError), second.reading(100):
            pass
        with pytest.raises(HasToWaitError), second.reading(100):
            pass
        with first.computing(500):
            with pytest.raises(HasToWaitError), second.reading(100):
                pass  # how the network runs is not known yet
            first.fitted(500)
            with second.stack(), second.reading(100):
                pass


def test_a_network_that_takes_more_than_was_asked_for_leaves_no_room_for_a_volume() -> None:
    machine = Machine(free=1000)
    first, second = machine.share(), machine.share()

    with first.stack(), first.computing(100):
        assert machine.ledger.promised_beside(second) == 100
        first.fitted(950)  # on the CPU: the card is full
        assert machine.ledger.promised_beside(second) == 950
        with pytest.raises(HasToWaitError), second.reading(100):
            pass
        first.fitted(900)
        with second.stack(), second.reading(100):
            pass


def test_a_volume_that_has_no_room_beside_what_the_network_may_take_is_read_after_it() -> None:
    machine = Machine(free=550)
    first, second = machine.share(), machine.share()

    with first.stack():
        with first.computing(500):
            first.fitted(500)
            with pytest.raises(HasToWaitError), second.reading(100):
                pass  # nothing of the 500 has been taken yet
        with second.stack(), second.reading(100):
            pass


def test_what_is_read_counts_before_it_is_there() -> None:
    machine = Machine(free=150)
    first, second = machine.share(), machine.share()

    with first.stack(), second.stack(), first.computing(60):
        first.fitted(60)
        with second.reading(90):
            assert machine.ledger.promised_beside(first) == 90
        assert machine.ledger.promised_beside(first) == 0
        assert machine.ledger.promised_beside(second) == 60


def test_a_network_waits_for_what_is_being_written_and_then_tries() -> None:
    machine = Machine(free=300)
    first, second = machine.share(), machine.share()

    with second.stack():
        with first.stack():
            with first.reading(200):
                pass
            with first.computing(10):
                pass
            with second.reading(50):
                pass
            with pytest.raises(HasToWaitError), second.computing(250):
                pass
            with second.computing(200) as promised:  # beside the half volume that writing takes
                assert promised == 100
        with second.computing(400) as promised:
            assert promised == 0


def test_what_a_job_was_let_in_for_ends_with_it() -> None:
    machine = Machine(free=300)
    first, second = machine.share(), machine.share()

    for failing in (first.reading(200), first.computing(200)):
        with pytest.raises(ZeroDivisionError), first.stack(), failing:
            raise ZeroDivisionError
        assert machine.ledger.promised_beside(second) == 0
        with second.stack(), second.reading(300):
            pass


def test_a_machine_that_does_not_tell_keeps_nobody() -> None:
    ledger = MemoryLedger(lambda: None, look_interval_s=0)
    first, second = (MemoryShare(ledger, at_once) for _ in range(2))

    with first.stack(), first.computing(10**15), second.stack():
        first.fitted(10**15)
        with second.reading(10**15):
            pass


def test_the_time_of_waiting_is_no_time_of_work() -> None:
    machine = Machine(free=100)
    first, clock_s = machine.share(), [50.0]

    def wait(is_let_in) -> None:
        while not is_let_in():
            clock_s[0] += 7.0
            machine.ledger.leave(first)

    second = MemoryShare(machine.ledger, wait, lambda: clock_s[0])
    with first.stack(), first.computing(90), second.stack():
        first.fitted(90)
        with second.reading(50):
            assert clock_s == [57.0]
            assert second.working_s() == 50.0
        with first.computing(0):  # for its own end
            pass


@pytest.mark.parametrize("seed", range(4))
def test_jobs_with_several_stacks_all_end_and_never_take_more_than_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine, lanes = Machine(free=1000), Lanes()
    #: volumes and networks that fit, each stack for itself
    jobs = [
        [
            (int(v), int(rng.integers(v, 1000 - v)))
            for v in rng.integers(20, 330, rng.integers(1, 4))
        ]
        for _ in range(8)
    ]
    done: list[int] = []

    def wait(is_let_in) -> None:
        while not is_let_in():
            pass

    def work(number: int, turn) -> None:
        share = MemoryShare(machine.ledger, wait)
        for volume, network in jobs[number]:
            with share.stack():
                turn.enter(Stage.READ, lambda: None)
                with share.reading(volume):
                    machine.take(volume)
                turn.enter(Stage.SEGMENT, lambda: None)
                with share.computing(network):
                    share.fitted(network)
                    machine.take(network)
                    machine.take(volume // 2 - network)  # labels are left of it
                turn.enter(Stage.CHECK, lambda: None)
                machine.take(volume // 2)
                machine.take(-volume - 2 * (volume // 2))
        turn.end()
        done.append(number)

    threads = []
    for number in range(len(jobs)):
        turn = lanes.begin(WAIT_S)
        assert turn is not None
        threads.append(threading.Thread(target=work, args=(number, turn), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(WAIT_S)

    assert sorted(done) == list(range(len(jobs)))
    assert machine.free == 1000
    assert machine.least >= 0
