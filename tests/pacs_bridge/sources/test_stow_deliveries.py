"""Results that a service cannot stomach, and those that wait behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from pacs_bridge.config.destinations import ResultKind, StowDestinationConfig
from pacs_bridge.deliver.sender import DestinationSender
from pacs_bridge.deliver.stow import StowClient
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import DeliveryState, JobRequest, Priority, ResultFile

_STEP_S = 5.0


@pytest.fixture
def ledger(tmp_path: Path, clock: Any) -> Iterator[Ledger]:
    made = Ledger.open(tmp_path / "ledger.sqlite", clock)
    yield made
    made.close()


@pytest.fixture
def finish(
    ledger: Ledger, write_seg: Callable[..., ResultFile], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """A job of this name with a result whose delivery waits: its number, and the result's UID."""

    def make(name: str, priority: Priority) -> tuple[int, str]:
        labels = np.zeros((1, 8, 8), dtype=np.uint8)
        result = write_seg(tmp_path / f"{name}.dcm", ResultKind.BINARY, labels)
        ledger.jobs.submit(JobRequest(f"1.2.{len(name)}", 1, "all", "m", ("web",), priority))
        claim = ledger.jobs.claim("worker", 60.0)
        assert claim is not None
        ledger.jobs.complete(claim, [result], [])
        return claim.job_id, result.sop_instance_uid

    return make


def _breaks(_ds: pydicom.Dataset) -> tuple[int, object]:
    raise ConnectionResetError  # in the service: it ends the connection without a word


def _says(status: int) -> Callable[[pydicom.Dataset], tuple[int, object]]:
    return lambda _ds: (status, b"")


@pytest.mark.parametrize(
    ("stomach", "retry_after"),
    [
        pytest.param(_breaks, {}, id="breaks"),
        *(
            pytest.param(_says(status), {}, id=f"{status}")
            for status in (201, 401, 403, 408, 429, 500, 502, 503, 504, 507)
        ),
        *(
            pytest.param(_says(status), {status: "10"}, id=f"{status} asking for a wait")
            for status in (429, 503)
        ),
    ],
)
def test_a_result_that_breaks_its_request_holds_up_no_other(
    serve_web: Callable[..., Any],
    ledger: Ledger,
    finish: Callable[..., tuple[int, str]],
    clock: Any,
    tmp_path: Path,
    stomach: Callable[[pydicom.Dataset], tuple[int, object]],
    retry_after: dict[int, str],
) -> None:
    service = serve_web([])
    service.retry_after = retry_after
    poison, poison_uid = finish("poison", Priority.STAT)
    good, _ = finish("good", Priority.ROUTINE)
    takes = service.stow_answer
    service.stow_answer = lambda ds: (stomach if ds.SOPInstanceUID == poison_uid else takes)(ds)
    table = {"name": "web", "url": service.url, "response_timeout_s": 5}
    config = StowDestinationConfig.model_validate_json(json.dumps(table))
    client = StowClient(config, tmp_path)
    log = JsonLog.open(tmp_path / "log.jsonl", IdentityHash(b"test"))
    sender = DestinationSender(config, client, ledger.outbox, clock, log)

    for _ in range(8):
        while sender.send_one("sender"):
            pass
        clock.pass_s(_STEP_S)

    client.close()
    states = [ledger.view.deliveries(job)[0].state for job in (poison, good)]
    assert states == [DeliveryState.PENDING, DeliveryState.SENT]
