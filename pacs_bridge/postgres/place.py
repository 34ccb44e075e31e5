"""The jobs that a bridge elsewhere hands over."""

from __future__ import annotations

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.job_place import JobPlace
from pacs_bridge.postgres.payload import JobPayload
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.recipe import Recipes
from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.ticket import TicketBook, TicketPlans, TicketSources, identity
from pacs_bridge.sources.configured_sources import ConfiguredSources
from pacs_bridge.sources.opening import job_sources


def handed_over_jobs(config: BridgeConfig, url: str, name: str) -> JobPlace:
    """Jobs from PostgreSQL; their data folder is mounted here.

    Neither PostgreSQL nor the folder need be there yet: until they are, there is no job.

    Parameters
    ----------
    config
        Of this machine; routes, destinations and sources are named as in that of the bridge.
    url, name
        Of the database, and of the queue in it.

    Raises
    ------
    PermanentError
        ``wrong-queue`` if the URL cannot be read.
    """
    server = Server(url, "pacs-bridge worker")

    def owner() -> str:
        return identity(config.data_folder)

    recipes = Recipes(config)

    def difference(payload: JobPayload) -> str:
        return payload.recipe.difference(recipes.of(payload.request))

    queue = PostgresQueue(server, name, owner, config.workers.max_attempts, difference)
    tickets = TicketBook(config.data_folder)
    elsewhere = ConfiguredSources(job_sources(config, TicketPlans(tickets)))
    sources = TicketSources(tickets, elsewhere, owner)
    return JobPlace(queue, sources, queue.close)
