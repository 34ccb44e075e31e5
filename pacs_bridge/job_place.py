"""Where a worker gets its jobs, and the files of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.job_source import JobSources, SpoolSources
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import SPOOL, Queue
from pacs_bridge.sources.configured_sources import ConfiguredSources
from pacs_bridge.sources.opening import job_sources


@dataclass(frozen=True, slots=True)
class JobPlace:
    """A queue, and what its jobs are made from."""

    queue: Queue
    sources: JobSources
    close: Callable[[], None]


def own_ledger(config: BridgeConfig) -> JobPlace:
    """The jobs of the ledger of this machine.

    Raises
    ------
    BridgeError
        If the ledger cannot be opened.
    """
    ledger = Ledger.open(config.ledger_path, max_failures=config.workers.max_attempts)
    spool = SpoolSources(ledger.instances, config.data_folder)
    sources = ConfiguredSources({SPOOL: spool, **job_sources(config)})
    return JobPlace(ledger.jobs, sources, ledger.close)
