"""The sender as a process of its own. Nothing here imports what computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pacs_bridge.child import leave_on_signals, open_log, process_name
from pacs_bridge.clock import SystemClock
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.destinations import DestinationConfig, StowDestinationConfig
from pacs_bridge.deliver.departure import Departure
from pacs_bridge.deliver.sender import DestinationSender, ResultSender
from pacs_bridge.deliver.store_scu import StoreScu
from pacs_bridge.deliver.stow import StowClient
from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log

_POLL_S = 0.5
#: After the signal to stop what is being sent may go on for so long.
_GRACE_S = 5.0
#: Between two looks for results of jobs that are older than the configuration.
_ORPHANS_INTERVAL_S = 30.0


def run_sender(config: BridgeConfig, announce: Callable[[], None] = lambda: None) -> None:
    """Send until SIGTERM or SIGINT; what is not sent seconds later is given back.

    In the main thread.

    Parameters
    ----------
    config
        The whole configuration.
    announce
        Called once deliveries are worked off.

    Raises
    ------
    BridgeError
        If the ledger cannot be opened.
    Exception
        Whatever a destination's thread died of: a fault of this software.
    """
    leave = leave_on_signals()
    log = open_log(config)
    ledger = Ledger.open(config.ledger_path)
    faults: list[BaseException] = []

    def work(destination: DestinationConfig) -> None:
        scu = result_sender(destination, config, Departure(leave, _GRACE_S).check)
        sender = DestinationSender(destination, scu, ledger.outbox, SystemClock(), log)
        try:
            sender.run(f"{process_name()}:{destination.name}", leave, _POLL_S)
        except BaseException as error:  # with one thread dead the process must not look alive
            faults.append(error)
            leave.set()

    threads = [
        threading.Thread(target=work, args=(each,), name=f"send-{each.name}")
        for each in config.destinations
    ]
    for thread in threads:
        thread.start()
    announce()
    known = [each.name for each in config.destinations]
    _park_orphans(ledger, known, log)
    while not leave.wait(_ORPHANS_INTERVAL_S):
        _park_orphans(ledger, known, log)
    for thread in threads:
        thread.join()
    ledger.close()
    if faults:
        raise faults[0]


def result_sender(
    destination: DestinationConfig, config: BridgeConfig, check: Callable[[], None] = lambda: None
) -> ResultSender:
    """What sends to this kind of destination; ``check`` raises to end what is being sent."""
    if isinstance(destination, StowDestinationConfig):
        return StowClient(destination, config.data_folder, check)
    calling = destination.calling_ae_title or config.listener.ae_title
    return StoreScu(destination, calling, config.data_folder, check)


def _park_orphans(ledger: Ledger, known: Sequence[str], log: Log) -> None:
    """End the deliveries that nobody would make, and say so."""
    try:
        for destination, number in ledger.outbox.park_unknown(known):
            log.error("destination-unknown", destination=destination, deliveries=number)
    except TransientError as error:
        log.warning("outbox-unavailable", reason=error.reason, detail=error.detail)
