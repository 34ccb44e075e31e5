"""The dispatcher as a process of its own, and the place of jobs of a worker elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pacs_bridge.child import leave_on_signals, open_log
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.queue import QueueConfig
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.lease import KeptLease
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log
from pacs_bridge.postgres.dispatcher import Dispatcher, DispatchRules
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.planned_ticket import PlanLookup
from pacs_bridge.postgres.recipe import Recipes
from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.tables import prepare
from pacs_bridge.postgres.ticket import TicketBook, made_identity
from pacs_bridge.queue import DISPATCHER

_POLL_S = 0.25
_TROUBLE_WAIT_S = 2.0


def run_dispatcher(
    config: BridgeConfig, queue: QueueConfig, announce: Callable[[], None] = lambda: None
) -> None:
    """Hand over until SIGTERM or SIGINT; what was handed over stays so. In the main thread.

    Parameters
    ----------
    config
        The whole configuration.
    queue
        Where the jobs go.
    announce
        Called once it runs; PostgreSQL may still be away.

    Raises
    ------
    PermanentError
        ``wrong-queue`` if the queue is another bridge's, or the URL cannot be read.
    TransientError
        If the ledger cannot be opened.
    """
    leave = leave_on_signals()
    log = open_log(config)
    ledger = Ledger.open(config.ledger_path, max_failures=config.workers.max_attempts)
    server = Server(queue.url, "pacs-bridge dispatcher")
    rules = DispatchRules(
        config.workers.lease_s,
        queue.waiting_jobs,
        config.workers.retry.policy(None),
        queue.local_workers,
    )
    handed = HandedOver(server, queue.name, Recipes(config).of, config.workers.max_attempts)
    tickets = TicketBook(config.data_folder, PlanLookup(config).of)
    dispatcher = Dispatcher(ledger, handed, tickets, rules, log)
    announce()
    # the dispatcher touches files, and a share that hangs holds it up for as long
    lease_s = config.workers.lease_s
    with KeptLease(lambda: ledger.jobs.prolong(DISPATCHER, lease_s), lease_s / 4):
        _dispatch(
            dispatcher,
            lambda: prepare(server, queue.name, made_identity(config.data_folder)),
            log,
            leave,
        )
    handed.turn.end()
    server.close()
    ledger.close()


def _dispatch(
    dispatcher: Dispatcher, prepare_queue: Callable[[], None], log: Log, leave: threading.Event
) -> None:
    is_prepared = False
    while not leave.is_set():
        try:
            dispatcher.keep_leases()
            if not is_prepared:
                prepare_queue()
                is_prepared = True
            if not dispatcher.step():
                leave.wait(_POLL_S)
        except TransientError as error:
            log.warning("queue-unavailable", reason=error.reason, detail=error.detail)
            leave.wait(_TROUBLE_WAIT_S)
            is_prepared = False
        except PermanentError as error:
            log.error("queue-unusable", reason=error.reason, detail=error.detail)
            raise
