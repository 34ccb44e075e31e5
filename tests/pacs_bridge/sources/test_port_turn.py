"""Who is next at a port that several fetches share."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pacs_bridge.sources.port_turn import PortTurn

ADDRESS = "127.0.0.1"

#: Has the turn, or waits for it, until it is told to end.
CHILD = """
import sys
from pacs_bridge.sources.port_turn import PortTurn
turn = PortTurn("127.0.0.1", int(sys.argv[1]))
print(turn.take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that no other test has turns at."""
    with socket.create_server((ADDRESS, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def line(port: int) -> Iterator[list[PortTurn]]:
    turns = [PortTurn(ADDRESS, port) for _ in range(6)]
    yield turns
    for each in turns:
        each.give_back()


def test_whoever_came_first_is_next_whoever_asks_first(line: list[PortTurn]) -> None:
    assert [turn.take() for turn in line] == [True, False, False, False, False, False]
    rng = random.Random(7)
    for number, turn in enumerate(line[:-1]):
        turn.give_back()
        asking = rng.sample(line[number + 1 :], len(line) - number - 1)
        assert [each for each in asking if each.take()] == [line[number + 1]]
    assert line[-1].take()


def test_who_gave_up_waiting_is_waited_for_no_more(line: list[PortTurn]) -> None:
    assert [turn.take() for turn in line[:3]] == [True, False, False]
    line[1].give_back()
    line[0].give_back()

    assert line[2].take()


def test_one_who_has_it_and_wants_it_again_goes_behind_those_who_wait(
    line: list[PortTurn],
) -> None:
    assert [turn.take() for turn in line[:2]] == [True, False]
    line[0].give_back()
    assert not line[0].take()
    assert line[1].take()


def test_two_that_came_in_the_same_nanosecond_wait_one_behind_the_other(port: int) -> None:
    times = iter([1, 5, 5, 6])
    turns = [PortTurn(ADDRESS, port, lambda: next(times)) for _ in range(3)]
    assert [turn.take() for turn in turns] == [True, False, False]
    for turn in turns:
        assert turn.take()
        turn.give_back()


def test_a_free_turn_is_left_for_some_looks_to_one_that_came_first_and_is_stopped(
    line: list[PortTurn],
) -> None:
    assert [turn.take() for turn in line[:3]] == [True, False, False]
    line[0].give_back()
    looks = 1
    while not line[2].take():
        looks += 1
        assert looks < 100
    assert looks > 10
    assert not line[1].take()


def test_the_end_of_a_process_gives_back_its_turn_and_its_place(port: int) -> None:
    children = []
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        children.append((child, child.stdout.readline().strip()))
    turn = PortTurn(ADDRESS, port)
    assert [said for _, said in children] == ["True", "False"]
    assert not turn.take()
    for child, _ in children:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()

    assert turn.take()
    turn.give_back()


def test_a_port_of_ones_own_is_waited_for_by_nobody() -> None:
    turns = [PortTurn(ADDRESS, 0) for _ in range(3)]
    assert [turn.take() for turn in turns] == [True] * 3
