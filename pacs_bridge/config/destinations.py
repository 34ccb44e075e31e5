"""Where results go, and how often to try."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from pacs_bridge.config.listener import KIB
from pacs_bridge.config.section import AETitle, Name, NotEmpty, Port, Section
from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.retry_policy import RetryPolicy


class ResultKind(StrEnum):
    """The Segmentation objects that a destination can be given; values as in ``SegKind``."""

    BINARY = "binary"
    LABELMAP = "labelmap"


class RetryConfig(Section):
    """Waiting times between attempts: ``first``, doubled each time, at most ``max``.

    Attempts go on until ``give_up_after_h``; with the defaults a PACS may be down for a week.
    """

    first_wait_s: Annotated[float, Field(gt=0)] = 10.0
    max_wait_s: Annotated[float, Field(gt=0)] = 1800.0
    give_up_after_h: Annotated[float, Field(gt=0)] = 168.0

    @model_validator(mode="after")
    def _waits_grow(self) -> RetryConfig:
        if self.max_wait_s < self.first_wait_s:
            raise ValueError("max_wait_s is less than first_wait_s")
        return self

    def policy(self, max_attempts: int | None = None) -> RetryPolicy:
        """The same, as the queue and the outbox take it."""
        return RetryPolicy(
            first_wait_s=self.first_wait_s,
            max_wait_s=self.max_wait_s,
            give_up_after_s=self.give_up_after_h * 3600,
            max_attempts=max_attempts,
        )


def checked_distinct(kinds: tuple[ResultKind, ...]) -> tuple[ResultKind, ...]:
    """Kinds, each once.

    Raises
    ------
    ValueError
        If one is given twice.
    """
    if len(set(kinds)) != len(kinds):
        raise ValueError("each kind once")
    return kinds


#: In order of preference; the first one that the peer accepts is sent.
Kinds = Annotated[tuple[ResultKind, ...], NotEmpty, AfterValidator(checked_distinct)]
_ALL_KINDS = (ResultKind.LABELMAP, ResultKind.BINARY)


class StoreDestinationConfig(Section):
    """A peer that results are sent to by C-STORE."""

    name: Name
    ae_title: AETitle
    calling_ae_title: AETitle | None = None  #: ours; None: the listener's AE title
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Port
    kinds: Kinds = _ALL_KINDS
    deflated: bool = False  #: offer Deflated Explicit VR Little Endian for BINARY
    max_pdu_kib: Annotated[int, Field(ge=16, le=1024)] = 256
    connect_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    response_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    retry: RetryConfig = RetryConfig()

    @property
    def max_pdu_bytes(self) -> int:
        """Largest PDU that we receive from this peer."""
        return self.max_pdu_kib * KIB


class StowDestinationConfig(WebServiceConfig):
    """A service that results are sent to by STOW-RS (PS3.18 10.5)."""

    name: Name
    kinds: Kinds = _ALL_KINDS
    retry: RetryConfig = RetryConfig()


def _tag(table: Any) -> str:
    has_url = "url" in table if isinstance(table, dict) else hasattr(table, "url")
    return "<stow>" if has_url else "<store>"


#: A destination has a ``url`` or an AE title. Tags: see ``pacs_bridge.config.sources``.
DestinationConfig: TypeAlias = Annotated[
    Annotated[StoreDestinationConfig, Tag("<store>")]
    | Annotated[StowDestinationConfig, Tag("<stow>")],
    Discriminator(_tag),
]
