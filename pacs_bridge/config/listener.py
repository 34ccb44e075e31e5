"""Who may send what to the listener, and how much of it at once."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from pacs_bridge.config.section import AETitle, NotEmpty, Section, checked_ae_title

KIB = 1024
MIB = 1024 * KIB
#: Stands for every calling AE title of a peer.
ANY_AE_TITLE = "*"


class TransferSyntax(StrEnum):
    """Transfer syntaxes that can be accepted (PS3.5 section 10), by their short names.

    The deflated ones are absent on purpose: a message of 1 MB can inflate to more than the
    memory of the machine before anything of it can be checked.
    """

    EXPLICIT_LITTLE = "explicit-little"
    IMPLICIT_LITTLE = "implicit-little"
    EXPLICIT_BIG = "explicit-big"
    RLE = "rle"
    JPEG_BASELINE = "jpeg-baseline"
    JPEG_EXTENDED = "jpeg-extended"
    JPEG_LOSSLESS = "jpeg-lossless"
    JPEG_LOSSLESS_SV1 = "jpeg-lossless-sv1"
    JPEG_LS_LOSSLESS = "jpeg-ls-lossless"
    JPEG_LS_NEAR_LOSSLESS = "jpeg-ls-near-lossless"
    JPEG_2000_LOSSLESS = "jpeg-2000-lossless"
    JPEG_2000 = "jpeg-2000"
    HTJ2K_LOSSLESS = "htj2k-lossless"
    HTJ2K_LOSSLESS_RPCL = "htj2k-lossless-rpcl"
    HTJ2K = "htj2k"

    @property
    def uid(self) -> str:
        """The transfer syntax UID (PS3.6 table A-1)."""
        return _TRANSFER_SYNTAX_UID[self]


_TRANSFER_SYNTAX_UID = {
    TransferSyntax.EXPLICIT_LITTLE: "1.2.840.10008.1.2.1",
    TransferSyntax.IMPLICIT_LITTLE: "1.2.840.10008.1.2",
    TransferSyntax.EXPLICIT_BIG: "1.2.840.10008.1.2.2",
    TransferSyntax.RLE: "1.2.840.10008.1.2.5",
    TransferSyntax.JPEG_BASELINE: "1.2.840.10008.1.2.4.50",
    TransferSyntax.JPEG_EXTENDED: "1.2.840.10008.1.2.4.51",
    TransferSyntax.JPEG_LOSSLESS: "1.2.840.10008.1.2.4.57",
    TransferSyntax.JPEG_LOSSLESS_SV1: "1.2.840.10008.1.2.4.70",
    TransferSyntax.JPEG_LS_LOSSLESS: "1.2.840.10008.1.2.4.80",
    TransferSyntax.JPEG_LS_NEAR_LOSSLESS: "1.2.840.10008.1.2.4.81",
    TransferSyntax.JPEG_2000_LOSSLESS: "1.2.840.10008.1.2.4.90",
    TransferSyntax.JPEG_2000: "1.2.840.10008.1.2.4.91",
    TransferSyntax.HTJ2K_LOSSLESS: "1.2.840.10008.1.2.4.201",
    TransferSyntax.HTJ2K_LOSSLESS_RPCL: "1.2.840.10008.1.2.4.202",
    TransferSyntax.HTJ2K: "1.2.840.10008.1.2.4.203",
}


class OwnResults(StrEnum):
    """What happens when a result of ours is sent back."""

    REFUSE = "refuse"  #: its SOP class is not accepted in negotiation
    DISCARD = "discard"  #: accepted, counted and not kept: for a PACS that forwards everything


def checked_network(value: str) -> str:
    """An IP address, or a network as ``address/prefix``.

    Raises
    ------
    ValueError
        If it is neither, or has bits set behind its prefix.
    """
    ip_network(value)
    return value


def checked_address(value: str) -> str:
    """An IP address to bind.

    Raises
    ------
    ValueError
        If it is not one; host names are not looked up.
    """
    ip_address(value)
    return value


def checked_calling_ae_title(value: str) -> str:
    """An AE title, or ``*`` for every one."""
    return value if value == ANY_AE_TITLE else checked_ae_title(value)


NetworkText = Annotated[str, AfterValidator(checked_network)]


class PeerConfig(Section):
    """One sender, or one group of senders, that may associate."""

    ae_title: Annotated[str, AfterValidator(checked_calling_ae_title)]
    addresses: Annotated[tuple[NetworkText, ...], NotEmpty]

    def allows(self, ae_title: str, address: str) -> bool:
        """Whether a calling AE title at this IP address is this peer."""
        return self.ae_title in (ANY_AE_TITLE, ae_title) and self.holds(address)

    def holds(self, address: str) -> bool:
        """Whether this IP address belongs to this peer."""
        return any(ip_address(address) in network for network in self._networks())

    def _networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text) for text in self.addresses)


class ListenerConfig(Section):
    """The Storage and Verification SCP.

    No default opens a door: it binds the loopback address until told otherwise, answers only
    to its own AE title, and associates with nobody who is not one of ``peers``.
    """

    ae_title: AETitle = "PACSBRIDGE"
    bind: Annotated[str, AfterValidator(checked_address)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112  #: 0: any free port, for tests
    peers: Annotated[tuple[PeerConfig, ...], NotEmpty]
    transfer_syntaxes: Annotated[tuple[TransferSyntax, ...], NotEmpty] = tuple(TransferSyntax)
    own_results: OwnResults = OwnResults.REFUSE
    max_pdu_kib: Annotated[int, Field(ge=128, le=1024)] = 256
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 50
    max_associations_per_address: Annotated[int, Field(ge=1, le=1000)] = 25
    max_instance_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    max_multiframe_instance_mib: Annotated[int, Field(ge=1, le=4096)] = 2048
    max_association_gib: Annotated[int, Field(ge=1)] = 64
    max_association_instances: Annotated[int, Field(ge=1)] = 100_000
    association_request_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    pdu_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    idle_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    drain_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 45.0

    @field_validator("peers")
    @classmethod
    def _peers_are_distinct(cls, peers: tuple[PeerConfig, ...]) -> tuple[PeerConfig, ...]:
        seen: set[str] = set()
        for peer in peers:
            if peer.ae_title in seen:
                raise ValueError(f"{peer.ae_title!r} is named twice; give it several addresses")
            seen.add(peer.ae_title)
        return peers
