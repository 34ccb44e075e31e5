"""What every section of the configuration is made of: strict, frozen, no unknown keys."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

AE_TITLE_MAX_BYTES = 16
#: Type of a fault whose value is not repeated.
UNREPEATED = "unrepeated"
#: PS3.5 6.2: default character repertoire without the backslash and control characters.
_AE_TITLE_CHARACTERS = re.compile(r"[ -\[\]-~]*")
_Values = TypeVar("_Values", bound=tuple[object, ...])
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """A table of the configuration file.

    Types are strict (a port is a number, never text), values cannot change once loaded, and a
    key that is not known is a fault.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        hide_input_in_errors=True,
    )


def checked_ae_title(value: str) -> str:
    """An AE title without its padding (PS3.5 6.2, VR AE).

    Raises
    ------
    ValueError
        If it is empty, longer than 16 bytes, or holds a character that VR AE does not allow.
    """
    title = value.strip(" ")
    if not title:
        raise ValueError("an AE title cannot be empty or spaces only")
    if not _AE_TITLE_CHARACTERS.fullmatch(title):
        raise ValueError("an AE title holds ASCII without backslash and control characters")
    if len(title) > AE_TITLE_MAX_BYTES:
        raise ValueError(
            f"an AE title has at most {AE_TITLE_MAX_BYTES} characters, this one {len(title)}"
        )
    return title


def checked_pattern(value: str) -> str:
    """A regular expression that compiles.

    Raises
    ------
    ValueError
        If it does not.
    """
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


def checked_not_empty(values: _Values) -> _Values:
    """A list with something in it.

    Not a minimum length: that would be counted without the items that have faults themselves.

    Raises
    ------
    ValueError
        If it is empty.
    """
    if not values:
        raise ValueError("at least one is needed")
    return values


def resolved(path: Path, info: ValidationInfo) -> Path:
    """``path``, taken from the folder of the configuration file where it is relative."""
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.normpath(Path(folder) / path.expanduser()))


AETitle = Annotated[str, AfterValidator(checked_ae_title)]
#: Case-insensitive, found anywhere in the value (``re.search``).
Pattern = Annotated[str, AfterValidator(checked_pattern)]
#: A name that other tables, the command line and folders use.
Name = Annotated[str, Field(pattern=_NAME, max_length=64)]
Port = Annotated[int, Field(ge=1, le=65535)]
NotEmpty = AfterValidator(checked_not_empty)
