"""Which kind of Segmentation, in which transfer syntax, a destination takes.

Every kind that the destination may be given is proposed with one presentation context a
transfer syntax, so that the answer tells all that the peer accepts and not only what it likes
best (PS3.8 7.1.1.13). The site's order of kinds decides first, then how little has to be done
to the file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pacs_bridge.config.destinations import ResultKind
from pacs_bridge.queue import ResultFile


class Syntax(StrEnum):
    """The transfer syntaxes that results travel in (PS3.5 section 10)."""

    EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
    IMPLICIT_LITTLE = "1.2.840.10008.1.2"
    DEFLATED_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1.99"
    RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True, slots=True)
class Offer:
    """One presentation context: a result file, in one transfer syntax."""

    result: ResultFile
    syntax: Syntax


def offers(
    candidates: Sequence[ResultFile], kinds: Sequence[ResultKind], deflated: bool = False
) -> tuple[Offer, ...]:
    """Everything that may be sent to a destination, most wanted first.

    Parameters
    ----------
    candidates
        What there is to send: one result in several kinds.
    kinds
        Those that the destination may be given, most wanted first.
    deflated
        Whether BINARY may be sent in Deflated Explicit VR Little Endian.
    """
    by_kind = {ResultKind(candidate.kind): candidate for candidate in candidates}
    return tuple(
        Offer(by_kind[kind], syntax)
        for kind in kinds
        if kind in by_kind
        for syntax in _syntaxes(by_kind[kind], kind, deflated)
    )


def accepted(wanted: Sequence[Offer], contexts: Collection[tuple[str, str]]) -> tuple[Offer, ...]:
    """The offers that the peer accepted, still most wanted first.

    Parameters
    ----------
    wanted
        As from ``offers``.
    contexts
        SOP class UID and transfer syntax UID of every accepted presentation context.
    """
    return tuple(
        offer for offer in wanted if (offer.result.sop_class_uid, offer.syntax.value) in contexts
    )


def _syntaxes(result: ResultFile, kind: ResultKind, deflated: bool) -> tuple[Syntax, ...]:
    stored = Syntax(result.transfer_syntax_uid)
    native = (Syntax.EXPLICIT_LITTLE, Syntax.IMPLICIT_LITTLE)
    if kind is ResultKind.BINARY and deflated:
        return tuple(dict.fromkeys((Syntax.DEFLATED_EXPLICIT_LITTLE, stored, *native)))
    return tuple(dict.fromkeys((stored, *native)))
