"""The end of work that takes too long, with waits for others not counted."""

from __future__ import annotations

import threading

import pytest

from pacs_bridge.time_limit import TimeLimit


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set where the process would have ended."""
    made = threading.Event()
    monkeypatch.setattr("pacs_bridge.time_limit.os._exit", lambda _status: made.set())
    return made


def test_work_beyond_the_limit_is_noted_and_ends_the_process(ended: threading.Event) -> None:
    noted = threading.Event()
    with TimeLimit(0.1, noted.set):
        assert ended.wait(20)
    assert noted.is_set()


def test_waiting_for_others_does_not_count(ended: threading.Event) -> None:
    with TimeLimit(1.0, lambda: None) as limit, limit.paused():
        assert not ended.wait(2.0)


def test_what_was_used_before_a_pause_stays_used(ended: threading.Event) -> None:
    with TimeLimit(1.0, lambda: None) as limit:
        for _ in range(1000):
            with limit.paused():
                pass
            if ended.wait(0.05):
                break
    assert ended.is_set()


def test_a_wait_that_ends_with_an_error_is_over(ended: threading.Event) -> None:
    with TimeLimit(0.1, lambda: None) as limit:
        with pytest.raises(ValueError, match="lost"), limit.paused():
            raise ValueError("lost")
        assert ended.wait(20)
