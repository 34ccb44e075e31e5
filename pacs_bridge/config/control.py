"""State and steering over HTTP, for programs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pacs_bridge.config.listener import checked_address
from pacs_bridge.config.section import Section, resolved

TOKEN_NAME = "control.token"  # noqa: S105 - a file's name


class ControlConfig(Section):
    """Where the service tells its state and is steered; without this table nowhere."""

    bind: Annotated[str, AfterValidator(checked_address)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8043  #: 0: any free port, for tests
    #: Holds the token that every call but /health names. None: ``control.token`` in the data
    #: folder. It is made, readable by its owner only, where it is not there.
    token_file: Path | None = None

    @field_validator("token_file")
    @classmethod
    def _from_the_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return file if file is None else resolved(file, info)
