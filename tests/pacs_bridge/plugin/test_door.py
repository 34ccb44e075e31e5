"""From storescu to a Segmentation in the same study, through Orthanc and its plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.pacs

BINARY = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
#: For a result, on a busy machine.
LIMIT_S = 240.0
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Any], serving: Callable[..., Any]) -> Iterator[Any]:
    """An Orthanc with its plugin and a bridge, both running."""
    made = make_site()
    with serving(made.bridge_config):
        made.start()
        yield made
        made.end()


@pytest.fixture(scope="module")
def done(site: Any, ct_series: Callable[..., Any], wait_for: Wait) -> Any:
    """A series that a scanner has sent, and whose results Orthanc has."""
    series = ct_series()
    site.store(series.paths)
    wait_for(lambda: site.bridge_state(series) == ("sent", 1), LIMIT_S)
    return series


def test_both_kinds_appear_in_the_study_of_the_ct(site: Any, done: Any) -> None:
    results = site.results(done)
    assert {str(ds.SOPClassUID) for ds in results} == {BINARY, LABELMAP}
    assert {str(ds.StudyInstanceUID) for ds in results} == {done.study_uid}
    for ds in results:
        (referenced,) = ds.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == done.series_uid
        assert len(referenced.ReferencedInstanceSequence) == len(done.paths)
