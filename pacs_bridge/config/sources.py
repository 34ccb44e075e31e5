"""Archives that series are fetched from: where they are and what is asked of them at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pacs_bridge.config.listener import NetworkText, TransferSyntax, checked_address
from pacs_bridge.config.section import (
    AETitle,
    Name,
    NotEmpty,
    Port,
    Section,
    resolved,
)
from pacs_bridge.config.web_service import WebServiceConfig


class RetrieveBy(StrEnum):
    """The service by which a DIMSE archive sends instances (PS3.4 C.4.2, C.4.3)."""

    GET = "c-get"  #: over the association that asks for them
    MOVE = "c-move"  #: over one that the archive opens to us


class DicomwebSourceConfig(WebServiceConfig):
    """An archive with QIDO-RS and WADO-RS (PS3.18 10.4, 10.6)."""

    name: Name
    kind: Literal["dicomweb"]
    page_size: Annotated[int, Field(ge=1, le=100_000)] = 500  #: results asked for at once
    max_instance_mib: Annotated[int, Field(ge=1, le=4096)] = 2048
    max_series_gib: Annotated[int, Field(ge=1, le=1024)] = 16


class DimseSourceConfig(Section):
    """An archive with C-FIND, and C-GET or C-MOVE (PS3.4 annex C)."""

    name: Name
    kind: Literal["dimse"]
    ae_title: AETitle
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Port
    calling_ae_title: AETitle | None = None  #: ours; None: the listener's
    retrieve: RetrieveBy = RetrieveBy.GET
    #: For c-move: our AE title that the archive sends to. It knows address and port by it.
    move_ae_title: AETitle | None = None
    move_bind: Annotated[str, AfterValidator(checked_address)] = "127.0.0.1"
    move_port: Annotated[int, Field(ge=0, le=65535)] = 11113
    #: For c-move: addresses that the archive sends from; empty: those of its host.
    move_addresses: tuple[NetworkText, ...] = ()
    transfer_syntaxes: Annotated[tuple[TransferSyntax, ...], NotEmpty] = tuple(TransferSyntax)
    max_results: Annotated[int, Field(ge=1)] = 100_000  #: of one C-FIND; more are an error
    max_instance_mib: Annotated[int, Field(ge=1, le=4096)] = 2048
    max_series_gib: Annotated[int, Field(ge=1, le=1024)] = 16
    connect_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    response_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0

    @model_validator(mode="after")
    def _move_has_a_title(self) -> DimseSourceConfig:
        if self.retrieve is RetrieveBy.MOVE and self.move_ae_title is None:
            raise ValueError("move_ae_title is needed for retrieve = 'c-move'")
        return self


class PlanSourceConfig(Section):
    """Files that the plan of an archive run names."""

    name: Name
    kind: Literal["plan"]
    folder: Path  #: of the run; its plan lies there

    @field_validator("folder")
    @classmethod
    def _from_the_file(cls, folder: Path, info: ValidationInfo) -> Path:
        return resolved(folder, info)


def _kind(table: Any) -> str | None:
    kind = table.get("kind") if isinstance(table, dict) else getattr(table, "kind", None)
    return f"<{kind}>" if isinstance(kind, str) else None


#: Tags stand in angle brackets, by which they are told from keys in the path of a fault.
SourceConfig: TypeAlias = Annotated[
    Annotated[DicomwebSourceConfig, Tag("<dicomweb>")]
    | Annotated[DimseSourceConfig, Tag("<dimse>")]
    | Annotated[PlanSourceConfig, Tag("<plan>")],
    Discriminator(
        _kind,
        custom_error_type="source_kind",
        custom_error_message="kind is one of dicomweb, dimse, plan",
    ),
]
