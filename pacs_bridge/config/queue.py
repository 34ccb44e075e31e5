"""The queue on PostgreSQL, for workers on other machines."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from pacs_bridge.config.section import UNREPEATED, Name, Section

#: Of libpq's parameters those that are secrets themselves.
SECRETS = {
    "password",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
}


def checked_url(value: str) -> str:
    """A ``postgresql://`` URL without a password.

    Raises
    ------
    PydanticCustomError
        If it is another kind of URL, or holds a password.
    """
    try:
        parts = urlsplit(value)
    except ValueError:  # its text quotes the address
        raise PydanticCustomError(UNREPEATED, "a queue is at postgresql://HOST/DATABASE") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise PydanticCustomError(UNREPEATED, "a queue is at postgresql://")
    hidden = SECRETS & {key.casefold() for key in parse_qs(parts.query)}
    if parts.password or hidden or "@" in parts.path + parts.query + parts.fragment:
        raise PydanticCustomError(
            UNREPEATED, "a password belongs into libpq's password file (?passfile=/path)"
        )
    return value


class QueueConfig(Section):
    """Where jobs are handed over to workers on other machines; without this table nowhere."""

    url: Annotated[str, AfterValidator(checked_url)]
    #: Of the queue in the database: each bridge needs one of its own.
    name: Name = "default"
    #: Of a kind, handed over ahead of a free worker; a more urgent job is handed over at once.
    waiting_jobs: Annotated[int, Field(ge=1, le=10_000)] = 32
    #: Whether this machine segments as well, as listed under ``workers``; it does all that no
    #: worker elsewhere would, and of the rest all but one waiting job for each worker there.
    local_workers: bool = False
