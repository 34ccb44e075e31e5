"""A job whose series lies in an archive: fetched, segmented, and its result stored there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from inference.reasons import Reason
from inference.volume import Volume
from pacs_bridge.clock import SystemClock
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.deliver.sender import DestinationSender
from pacs_bridge.deliver.service import result_sender
from pacs_bridge.job_place import own_ledger
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, State
from pacs_bridge.worker import Worker

pytestmark = pytest.mark.pacs


class _OneSegmenter:
    """In place of a store of models: the same segmenter for every name."""

    def __init__(self, segmenter: Any) -> None:
        self._segmenter = segmenter

    def get(self, *_wanted: object) -> Any:
        return self._segmenter

    def device_computes(self) -> bool:
        return True


@pytest.fixture
def config(make_config: Callable[..., BridgeConfig], orthanc: Any) -> BridgeConfig:
    dimse = f'kind = "dimse", ae_title = "ORTHANC", host = "127.0.0.1", port = {orthanc.port}'
    move = f'retrieve = "c-move", move_ae_title = "BRIDGEFETCH", move_port = {orthanc.move_port}'
    return make_config(
        destinations=f'[{{ name = "archive", url = "{orthanc.url}" }}]',
        sources=f'[{{ name = "web", kind = "dicomweb", url = "{orthanc.url}" }},'
        f'{{ name = "get", {dimse} }}, {{ name = "move", {dimse}, {move} }}]',
    )


@pytest.mark.parametrize("source", ["web", "get", "move"])
def test_a_series_of_an_archive_has_its_result_in_its_study(
    config: BridgeConfig,
    orthanc: Any,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Any,
    kept_log: Any,
    source: str,
) -> None:
    paths = make_series(bright_volume, seed={"web": 41, "get": 42, "move": 43}[source])
    orthanc.put(paths)
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    ledger = Ledger.open(config.ledger_path)
    job = ledger.jobs.submit(
        JobRequest(
            series_instance_uid=str(first.SeriesInstanceUID),
            revision=1,
            route="all",
            model="bright",
            destinations=("archive",),
            source=source,
            study_instance_uid=str(first.StudyInstanceUID),
        )
    )
    place = own_ledger(config)
    models = _OneSegmenter(bright_segmenter)
    worker = Worker(config, place.queue, place.sources, models, kept_log, threading.Event())
    (destination,) = config.destinations
    stow = result_sender(destination, config)
    sender = DestinationSender(destination, stow, ledger.outbox, SystemClock(), kept_log)

    assert worker.work_one("w")
    assert sender.send_one("s")

    view = ledger.view.job(job)
    assert view is not None
    assert view.state is State.SENT
    found = orthanc.web.post(
        "/tools/find",
        json={
            "Level": "Instance",
            "Query": {"StudyInstanceUID": str(first.StudyInstanceUID), "Modality": "SEG"},
        },
    ).json()
    assert len(found) == 1
    assert not config.scratch_folder.exists() or not any(config.scratch_folder.rglob("*.dcm"))
    stow.close()
    place.close()
    ledger.close()


def test_a_job_of_a_source_that_is_configured_no_longer_is_dead_by_its_code(
    config: BridgeConfig, bright_segmenter: Any, kept_log: Any
) -> None:
    ledger = Ledger.open(config.ledger_path)
    job = ledger.jobs.submit(JobRequest("1.2.3", 1, "all", "bright", ("archive",), source="gone"))
    place = own_ledger(config)
    models = _OneSegmenter(bright_segmenter)
    Worker(config, place.queue, place.sources, models, kept_log, threading.Event()).work_one("w")

    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, Reason.UNKNOWN_SOURCE)
    place.close()
    ledger.close()
