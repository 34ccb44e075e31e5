"""What is tried again at once, and for how long a service is left alone."""

from __future__ import annotations

import pytest

from inference.reasons import Reason
from pacs_bridge.dicomweb.peer import WebPeerError
from pacs_bridge.errors import TransientError
from pacs_bridge.sources.brief_retry import BriefRetry


def _nothing() -> None:
    pass


def _asks_for(wait_s: float) -> WebPeerError:
    return WebPeerError(Reason.SOURCE_UNREACHABLE, f"wait {wait_s:g} s", wait_s)


def test_of_two_waits_that_a_service_asks_for_the_longer_one_is_kept() -> None:
    now_s = 0.0

    def wait(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    retry = BriefRetry(wait, lambda: now_s)
    asked: list[float] = []

    def long() -> None:
        raise _asks_for(600.0)

    def short() -> None:
        """Is asked for less while another thread is asked for more."""
        asked.append(now_s)
        with pytest.raises(WebPeerError):
            retry.run(long, _nothing)
        raise _asks_for(5.0)

    with pytest.raises(WebPeerError):
        retry.run(short, _nothing)
    assert asked == [0.0]  # it is not tried again within those ten minutes
    now_s += 60.0
    with pytest.raises(WebPeerError, match="wait 600 s") as left:
        retry.run(lambda: asked.append(now_s), _nothing)
    assert left.value.wait_s == 540.0
    now_s += 540.0
    retry.run(lambda: asked.append(now_s), _nothing)
    assert asked == [0.0, 600.0]


def test_a_port_that_was_waited_for_is_not_waited_for_again_at_once() -> None:
    attempts: list[None] = []

    def listen() -> None:
        attempts.append(None)
        raise TransientError(Reason.CANNOT_LISTEN, "other fetches hold the port")

    with pytest.raises(TransientError):
        BriefRetry(lambda seconds: None).run(listen, _nothing)
    assert len(attempts) == 1
