"""A series of which a part came is held where control was told how much there is, and then is one.

Listener and control as the processes that ``serve`` starts; nobody works off the job.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

COUNT = 8
SENT = 5


@dataclass
class Site:
    """A bridge that receives and can be asked."""

    port: int
    web: httpx.Client

    def facts(self, series: str) -> dict[str, Any]:
        return dict(self.web.get(f"/series/{series}").json())


@contextmanager
def _process(command: str, config: Path) -> Iterator[int]:
    """A process of the service; gives the port that it says."""
    read_end, write_end = os.pipe()
    program = [sys.executable, "-m", "pacs_bridge", command, "--config", config]
    with (config.parent / f"{command}.log").open("ab") as log:
        process = subprocess.Popen(
            [*program, "--ready-fd", str(write_end)], pass_fds=[write_end], stderr=log
        )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as said:
            yield int(said.readline())
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture
def site(make_config: Callable[..., Any], tmp_path: Path) -> Iterator[Site]:
    make_config(tmp_path, control="{ port = 0 }")
    with ExitStack() as stack:
        port = stack.enter_context(_process("listen", tmp_path / "bridge.toml"))
        control = stack.enter_context(_process("control", tmp_path / "bridge.toml"))
        token = (tmp_path / "data" / "control.token").read_text().strip()
        web = stack.enter_context(
            httpx.Client(
                base_url=f"http://127.0.0.1:{control}",
                headers={"Authorization": f"Bearer {token}"},
                trust_env=False,
                timeout=60,
            )
        )
        yield Site(port, web)


@pytest.mark.parametrize(
    ("ending", "is_told_early"), [("release", True), ("release", False), ("abort", False)]
)
def test_what_stops_half_way_is_held_and_the_rest_makes_one_job_of_it(
    site: Site,
    make_ct: Callable[..., Any],
    raw_peer: Callable[..., Any],
    send: Callable[..., list[int]],
    wait_for: Callable[..., None],
    ending: str,
    is_told_early: bool,
) -> None:
    instances = [make_ct(number=number) for number in range(COUNT)]
    series = str(instances[0].SeriesInstanceUID)
    expect = f"/series/{series}/expect?instances={COUNT}"
    peer = raw_peer(site.port).associate()
    if is_told_early:  # nothing of it has come yet
        assert site.web.post(expect).status_code == 200
    assert {peer.store(one) for one in instances[:SENT]} == {0}
    if not is_told_early:
        assert site.web.post(expect).status_code == 200
    peer.release() if ending == "release" else peer.abort()

    wait_for(lambda: site.facts(series)["state"] not in ("receiving", "quiet"))
    facts = site.facts(series)
    assert (facts["state"], facts["reason"]) == ("incomplete", "incomplete")
    assert [one["job_id"] for one in facts["revisions"]] == [None]

    # A second try that comes no further changes nothing.
    assert set(send(site.port, instances[:SENT])) == {0}
    held = f"{SENT} of {COUNT} instances here"
    wait_for(lambda: site.facts(series)["detail"] == held)
    assert site.facts(series)["state"] == "incomplete"

    assert set(send(site.port, instances)) == {0}
    wait_for(lambda: site.facts(series)["state"] == "ready")
    (revision,) = site.facts(series)["revisions"]
    assert (revision["revision"], revision["instance_count"]) == (1, COUNT)
    assert revision["job_id"] is not None


def test_who_is_told_of_a_part_too_late_makes_a_later_revision_of_the_whole(
    site: Site, make_ct: Callable[..., Any], send: Callable[..., list[int]], wait_for: Any
) -> None:
    instances = [make_ct(number=number) for number in range(COUNT)]
    series = str(instances[0].SeriesInstanceUID)
    assert set(send(site.port, instances[:SENT])) == {0}
    wait_for(lambda: site.facts(series)["state"] == "ready")  # nobody said how many there are

    assert site.web.post(f"/series/{series}/expect?instances={COUNT}").status_code == 200
    assert set(send(site.port, instances[: SENT + 1])) == {0}
    wait_for(lambda: site.facts(series)["state"] == "incomplete")
    assert set(send(site.port, instances)) == {0}
    wait_for(lambda: site.facts(series)["state"] == "ready")
    first, second = site.facts(series)["revisions"]
    assert (first["revision"], second["revision"]) == (1, 2)
    assert first["job_id"] != second["job_id"]
