"""What is being sent when the service stops: broken off in time, and still to be sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.destinations import ResultKind
from pacs_bridge.deliver.departure import Departure, LeavingError
from pacs_bridge.deliver.sender import DestinationSender
from pacs_bridge.deliver.service import result_sender
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import DeliveryState, JobRequest, ResultFile


def test_what_is_under_way_may_end_by_itself_for_a_while(clock: Any) -> None:
    leave = threading.Event()
    departure = Departure(leave, 5.0, clock.steady_s)
    clock.pass_s(100)
    departure.check()
    leave.set()
    departure.check()
    clock.pass_s(4.9)
    departure.check()
    clock.pass_s(0.2)
    with pytest.raises(LeavingError):
        departure.check()


@pytest.fixture
def mute() -> Iterator[tuple[int, threading.Event]]:
    """The port of a peer that takes connections and says nothing, and whether it has one."""
    has_one = threading.Event()
    held: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                held.append(listening.accept()[0])
                has_one.set()

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=accept)
    thread.start()
    yield listening.getsockname()[1], has_one
    with suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for each in held:
        each.close()


@pytest.mark.parametrize(
    "destination",
    [
        '{{ name = "d", url = "http://127.0.0.1:{port}/dicom", response_timeout_s = 3600 }}',
        '{{ name = "d", ae_title = "A", host = "127.0.0.1", port = {port},'
        " response_timeout_s = 3600 }}",
    ],
    ids=["stow", "store"],
)
def test_a_peer_that_says_nothing_holds_no_sender_that_is_to_stop(
    mute: tuple[int, threading.Event],
    make_config: Callable[..., BridgeConfig],
    write_seg: Callable[..., ResultFile],
    destination: str,
) -> None:
    port, is_reached = mute
    config = make_config(
        destinations=f"[{destination.format(port=port)}]",
        routes='[{ name = "all", model = "m", destinations = ["d"] }]',
    )
    config.data_folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(config.ledger_path)
    job = ledger.jobs.submit(JobRequest("1.2.3", 1, "all", "m", ("d",)))
    claim = ledger.jobs.claim("worker", 60.0)
    assert claim is not None
    labels = np.ones((1, 8, 8), dtype=np.uint8)
    path = config.data_folder / "result.dcm"
    ledger.jobs.complete(claim, [write_seg(path, ResultKind.BINARY, labels)], [])
    leave = threading.Event()
    sender = DestinationSender(
        config.destinations[0],
        result_sender(config.destinations[0], config, Departure(leave, 0.0).check),
        ledger.outbox,
        ledger.database.clock,
        JsonLog.open(config.data_folder / "log.jsonl", IdentityHash(b"test")),
    )
    thread = threading.Thread(target=sender.run, args=("sender", leave, 0.01), daemon=True)
    thread.start()
    assert is_reached.wait(60)
    leave.set()
    thread.join(60)
    assert not thread.is_alive()
    (delivery,) = ledger.view.deliveries(job)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)
    ledger.close()
