"""What was stable is segmented once, whoever is killed in between."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

pytestmark = pytest.mark.pacs

LIMIT_S = 240.0
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def served(make_site: Callable[..., Any], serving: Callable[..., Any]) -> Iterator[Any]:
    """A site whose bridge runs; its Orthanc does not yet."""
    site = make_site()
    with serving(site.bridge_config) as bridge:
        yield site, bridge
        site.kill()


@pytest.fixture
def site(served: Any) -> Iterator[Any]:
    """The same site for each test, with its Orthanc down."""
    made, _ = served
    yield made
    made.kill()


def _arrives_once(site: Any, series: Any, wait_for: Wait) -> None:
    """Both kinds of the result come, each once, and nothing is left to be sent."""
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    wait_for(lambda: site.status()["transfers"] == {}, LIMIT_S)
    classes = Counter(str(ds.SOPClassUID) for ds in site.results(series))
    assert sorted(classes.values()) == [1, 1]


def test_a_series_that_was_not_stable_yet_when_orthanc_was_killed_is_found_again(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    series = ct_series()
    usual, site.stable_age_s = site.stable_age_s, 30  # it cannot become stable before the kill
    site.start()
    site.store(series.paths)
    site.kill()
    site.stable_age_s = usual
    site.start()
    _arrives_once(site, series, wait_for)


def test_what_waits_for_a_bridge_that_is_down_survives_the_end_of_orthanc(
    site: Any, make_site: Callable[..., Any], ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    series = ct_series()
    ports = site.bridge_port, site.control_port
    nobody = make_site()
    site.bridge_port, site.control_port = nobody.bridge_port, nobody.control_port
    plugin, site.plugin = site.plugin, {"ControlUrl": None, "TokenFile": None}  # nothing is held up
    site.start()
    site.store(series.paths)
    wait_for(lambda: (site.state(series)["transfer"] or {}).get("attempts", 0) >= 2, LIMIT_S)
    transfer = site.state(series)["transfer"]
    assert (transfer["stage"], transfer["reason"]) in [
        ("waiting", "store-failed"),
        ("sending", ""),
    ]
    site.kill()

    site.plugin = plugin
    site.start()
    assert site.state(series)["bridge"]["reason"] == "bridge-unreachable"
    site.kill()

    site.bridge_port, site.control_port = ports
    site.start()
    _arrives_once(site, series, wait_for)


def test_a_result_comes_once_though_worker_and_orthanc_are_killed_meanwhile(
    site: Any, served: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    _, bridge = served
    series = ct_series(count=60, size=96)
    known = _count(bridge, "job-claimed")
    site.start()
    site.store(series.paths)
    wait_for(lambda: _count(bridge, "job-claimed") > known, LIMIT_S)
    os.kill(_worker(bridge), signal.SIGKILL)
    site.kill()
    site.start()
    _arrives_once(site, series, wait_for)


def _worker(bridge: Any) -> int:
    """The process that segments."""
    return [
        int(line["pid"])
        for line in bridge.log()
        if line["event"] == "process-started" and line["name"] == "worker0"
    ][-1]


def _count(bridge: Any, event: str) -> int:
    return [line["event"] for line in bridge.log()].count(event)


def test_orthanc_is_killed_again_and_again_while_series_come(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    sent = []
    for _ in range(4):
        site.start()
        sent.append(ct_series())
        site.store(sent[-1].paths)
        site.kill()
    site.start()
    for series in sent:
        _arrives_once(site, series, wait_for)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_or_doubled_in_a_storm_of_kills(
    site: Any, served: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    _, bridge = served
    chance = random.Random(20261122)
    sent: list[Any] = []
    kills = 0
    before = _count(bridge, "association-accepted")
    while kills < 60:
        site.start()
        for _ in range(chance.randrange(3)):
            sent.append(ct_series())
            site.store(sent[-1].paths)
        if chance.random() < 0.2:
            with suppress(ProcessLookupError):  # the one before is not replaced yet
                os.kill(_worker(bridge), signal.SIGKILL)
                kills += 1
        time.sleep(chance.uniform(0.0, 3.0))
        site.kill()
        kills += 1
    site.start()
    for series in sent:
        _arrives_once(site, series, wait_for)
    stores = _count(bridge, "association-accepted") - before
    print(f"{kills} kills, {len(sent)} series, each with both results once, {stores} stores")


def test_a_job_that_orthanc_does_not_remember_is_not_sent_again_and_again(
    site: Any, served: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    _, bridge = served
    series = ct_series()
    site.options = {"JobsHistorySize": 0}
    before = _count(bridge, "association-accepted")
    site.start()
    site.options = {}
    site.store(series.paths)
    _arrives_once(site, series, wait_for)
    assert 1 <= _count(bridge, "association-accepted") - before <= 3


def test_at_the_first_start_what_is_here_already_is_left_alone(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    series, later = ct_series(), ct_series()
    site.plugin = {"Automatic": False}
    site.start()
    site.store(series.paths)
    site.kill()
    (site.folder / "storage" / "pacs-bridge.notes").unlink()
    site.plugin = {}
    site.start()
    site.store(later.paths)
    _arrives_once(site, later, wait_for)
    assert site.bridge_state(series) == (None, None)
    with site.web as web:
        web.post(f"/pacs-bridge/series/{site.id_of(series)}/start")
    _arrives_once(site, series, wait_for)


def test_what_was_here_before_the_first_start_comes_after_clinical_work(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    before, later = ct_series(), ct_series()
    site.plugin = {"Automatic": False}
    site.start()
    site.store(before.paths)
    with site.web as web:
        path = f"/series/{site.id_of(before)}"
        wait_for(lambda: web.get(path).json()["IsStable"], LIMIT_S)
    site.kill()
    (site.folder / "storage" / "pacs-bridge.notes").unlink()
    site.plugin = {"ExistingSeries": True}
    site.start()
    site.plugin = {}
    site.store(later.paths)
    for series, priority in ((later, "routine"), (before, "archive")):
        _arrives_once(site, series, wait_for)
        (revision,) = site.state(series)["bridge"]["revisions"]
        assert revision["priority"] == priority


def test_a_bridge_that_runs_already_is_taken_as_it_is(
    site: Any, served: Any, bridge_command: Callable[..., list[str]], wait_for: Wait
) -> None:
    _, bridge = served
    site.plugin = {"Command": bridge_command(site)}
    site.start()
    wait_for(lambda: site.status()["process"] == "adopted", LIMIT_S)
    site.end()
    site.plugin = {}
    assert bridge.process.poll() is None


def test_a_bridge_that_orthanc_starts_is_started_again_and_ends_with_it(
    orthanc: Any,
    ct_series: Callable[..., Any],
    bridge_command: Callable[..., list[str]],
    wait_for: Wait,
) -> None:
    orthanc.plugin = {"Command": bridge_command(orthanc)}
    orthanc.start()
    wait_for(lambda: _pid_of_bridge(orthanc) is not None, LIMIT_S)
    first = _pid_of_bridge(orthanc)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: _pid_of_bridge(orthanc) not in (None, first), LIMIT_S)
    series = ct_series()
    orthanc.store(series.paths)
    _arrives_once(orthanc, series, wait_for)

    second = _pid_of_bridge(orthanc)
    assert second is not None
    orthanc.kill()
    wait_for(lambda: not _is_running(second), LIMIT_S)

    orthanc.start()
    wait_for(lambda: _pid_of_bridge(orthanc) is not None, LIMIT_S)
    third = _pid_of_bridge(orthanc)
    assert third is not None
    orthanc.end()
    assert not _is_running(third)


def _pid_of_bridge(site: Any) -> int | None:
    """The process that Orthanc has started last and that is still there."""
    assert site.process is not None
    for task in os.listdir(f"/proc/{site.process.pid}/task"):
        try:
            with open(f"/proc/{site.process.pid}/task/{task}/children") as children:
                for pid in children.read().split():
                    if _is_running(int(pid)):
                        return int(pid)
        except OSError:
            continue
    return None


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
