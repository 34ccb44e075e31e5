"""A store job of Orthanc that stops half-way: in the end there is one result, of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

pytestmark = pytest.mark.pacs

LIMIT_S = 240.0
#: A try comes after the quiet period, so that the bridge has looked at what is there between two.
QUIET_S, WAIT_S = 2.0, 4.0
COUNT = 24  # enough for a result of a part, too
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def served(make_site: Callable[..., Any], serving: Callable[..., Any]) -> Iterator[Any]:
    """A site whose bridge runs."""
    site = make_site(quiet_period_s=QUIET_S)
    with serving(site.bridge_config):
        yield site
        site.kill()


@pytest.fixture
def site(served: Any) -> Iterator[Any]:
    """The same for each test, with its Orthanc down."""
    served.plugin = {"FirstWaitSeconds": WAIT_S, "MaxWaitSeconds": WAIT_S}
    yield served
    served.kill()


@contextmanager
def _image_that_cannot_be_read(site: Any, series: Any) -> Iterator[None]:
    """Orthanc has a series, and lost the file of an image in its middle for a while.

    It is started anew: what it has in its memory would be sent all the same.
    """
    usual, site.stable_age_s = site.stable_age_s, 30
    site.start()
    site.store(series.paths)
    with site.web as web:
        ids = web.get(f"/series/{site.id_of(series)}").json()["Instances"]
        tags = web.get(f"/instances/{ids[COUNT // 2]}/simplified-tags").json()
    site.end()
    site.stable_age_s = usual
    uid = tags["SOPInstanceUID"].encode()
    files = [path for path in (site.folder / "storage").glob("??/??/*") if _holds(path, uid)]
    assert files
    for path in files:
        path.rename(path.with_suffix(".away"))
    site.start()
    yield
    for path in files:
        path.with_suffix(".away").rename(path)


def _holds(path: Path, uid: bytes) -> bool:
    return path.is_file() and uid in path.read_bytes()


def _bridge_facts(site: Any, series: Any) -> dict[str, Any]:
    """What the bridge itself says of a series, without Orthanc."""
    token = (site.folder / "data" / "control.token").read_text().strip()
    url = f"http://127.0.0.1:{site.control_port}/series/{series.series_uid}"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    return dict(answer.json())


def _results_of(site: Any, series: Any, count: int) -> list[pydicom.Dataset]:
    """The results that rest on so many images."""
    return [
        ds
        for ds in site.results(series)
        for referenced in ds.ReferencedSeriesSequence
        if referenced.SeriesInstanceUID == series.series_uid
        and len(referenced.ReferencedInstanceSequence) == count
    ]


def test_a_series_in_part_is_held_and_becomes_one_job_when_the_rest_can_be_read(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    series = ct_series(COUNT)
    with _image_that_cannot_be_read(site, series):
        wait_for(lambda: _bridge_facts(site, series).get("state") == "incomplete", LIMIT_S)
        facts = _bridge_facts(site, series)
        assert 0 < facts["instance_count"] < COUNT
        assert [one["job_id"] for one in facts["revisions"]] == [None]
        transfer = site.state(series)["transfer"]
        assert transfer["stage"] in ("waiting", "sending")
        wait_for(lambda: (site.state(series)["transfer"] or {}).get("attempts", 0) >= 2, LIMIT_S)

    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    assert len(_bridge_facts(site, series)["revisions"]) == 1
    assert len(_results_of(site, series, COUNT)) == len(site.results(series)) == 2
    wait_for(lambda: site.status()["transfers"] == {}, LIMIT_S)


def test_without_control_the_result_of_the_whole_takes_the_place_of_that_of_a_part(
    site: Any, ct_series: Callable[..., Any], wait_for: Wait
) -> None:
    site.plugin |= {"ControlUrl": None, "TokenFile": None}
    series = ct_series(COUNT)
    with _image_that_cannot_be_read(site, series):
        wait_for(lambda: _bridge_facts(site, series).get("state") == "sent", LIMIT_S)
        assert site.state(series)["bridge"]["reason"] == "no-control"
    wait_for(lambda: len(_results_of(site, series, COUNT)) == 2, LIMIT_S)
    first, second = _bridge_facts(site, series)["revisions"]
    assert (first["state"], second["revision"]) == ("superseded", 2)
    assert 0 < first["instance_count"] < second["instance_count"] == COUNT
    wait_for(lambda: site.status()["transfers"] == {}, LIMIT_S)
