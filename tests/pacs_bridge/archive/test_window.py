"""When series may be begun: hours of the day as the clock on the wall shows them, and a pace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pacs_bridge.archive.window import Rate, TimeWindow

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = TimeWindow.parse("19:00-06:00")


@pytest.mark.parametrize(
    ("window", "hour", "is_open"),
    [
        ("19:00-06:00", 18, False),
        ("19:00-06:00", 19, True),
        ("19:00-06:00", 0, True),
        ("19:00-06:00", 6, False),
        ("08:00-17:00", 8, True),
        ("08:00-17:00", 17, False),
        ("00:00-00:00", 12, True),
    ],
)
def test_a_window_is_open_from_its_beginning_to_before_its_end(window, hour, is_open):
    assert TimeWindow.parse(window).is_open(datetime(2026, 5, 4, hour, tzinfo=BERLIN)) is is_open


@pytest.mark.parametrize(
    "day", [datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)]
)
def test_over_a_change_of_the_clocks_the_wall_decides(day):
    # the nights of 2026 in which Berlin puts its clocks forward, and back
    moments = [day + timedelta(minutes=minute) for minute in range(2 * 24 * 60)]
    for moment in moments:
        local = moment.astimezone(BERLIN)
        assert NIGHT.is_open(local) is (local.hour >= 19 or local.hour < 6)
    in_one_night = [
        moment
        for moment in moments
        if NIGHT.is_open(moment.astimezone(BERLIN))
        and day + timedelta(hours=12) <= moment < day + timedelta(hours=36)
    ]
    assert len(in_one_night) in (10 * 60, 12 * 60)  # an hour less, or more, than eleven


@pytest.mark.parametrize("text", ["19-6", "25:00-06:00", "", "19:00", "19:00-06:60"])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ValueError):
        TimeWindow.parse(text)


def test_a_rate_spreads_its_series_evenly():
    rate = Rate.parse("60/h")
    now = datetime(2026, 5, 4, 12, tzinfo=UTC)
    assert rate.wait_s(None, now) == 0
    assert rate.wait_s(now - timedelta(seconds=20), now) == 40
    assert rate.wait_s(now - timedelta(seconds=61), now) == 0
    assert (Rate.parse("2/min").interval_s, Rate.parse("48/d").interval_s) == (30, 1800)


def test_a_clock_that_was_put_back_holds_a_rate_up_for_one_interval_at_most():
    now = datetime(2026, 5, 4, 12, tzinfo=UTC)
    assert Rate.parse("60/h").wait_s(now + timedelta(hours=5), now) == 60


@pytest.mark.parametrize("text", ["0/h", "60", "60/week", "-1/h"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError):
        Rate.parse(text)
