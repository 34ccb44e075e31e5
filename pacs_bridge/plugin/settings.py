"""The section ``PacsBridge`` of Orthanc's configuration file: all that is wrong at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECTION = "PacsBridge"
NOTES_NAME = "pacs-bridge.notes"
_STABLE_AGE_S = 60.0  # Orthanc's default


@dataclass(frozen=True, slots=True)
class Settings:
    """How this Orthanc works with a bridge."""

    modality: str  #: the bridge's listener, by its name in DicomModalities
    notes_file: Path  #: what is still to be sent
    stable_age_s: float  #: of Orthanc itself
    control_url: str = ""  #: empty: nothing is known of what the bridge does
    token_file: Path | None = None
    ca_file: Path | None = None  #: of whoever signed the certificate of an https control
    automatic: bool = True  #: a stable CT series is sent by itself
    existing_series: bool = False  #: at the first start, also what is already here
    command: tuple[str, ...] = ()  #: starts the bridge; empty: somebody else does
    stop_timeout_s: float = 60.0
    stores_at_once: int = 1
    first_wait_s: float = 5.0
    max_wait_s: float = 600.0
    give_up_after_h: float = 168.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of a configuration."""

    settings: Settings | None  #: None where there are faults, or the plugin is not wanted
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _FaultError(ValueError):
    """What is wrong with one value."""


def read_settings(configuration: Mapping[str, object], file: Path | None = None) -> Reading:
    """The settings in Orthanc's whole configuration.

    Parameters
    ----------
    configuration
        As Orthanc tells it.
    file
        Where it was read from: Orthanc takes relative paths as beside it. None if that is not
        known, or a folder.
    """
    section = configuration.get(SECTION)
    if section is None:
        return Reading(None, warnings=(f"no section {SECTION}: the plugin does nothing",))
    if not isinstance(section, Mapping):
        return Reading(None, (f"{SECTION}: not an object",))
    faults, warnings = [], []
    values: dict[str, Any] = {}
    for key, value in section.items():
        known = _KEYS.get(key)
        if known is None:
            warnings.append(f"{SECTION}.{key}: unknown key")
            continue
        name, check = known
        try:
            values[name] = check(value)
        except _FaultError as fault:
            faults.append(f"{SECTION}.{key}: {fault}")
    if values.pop("enable", True) is False:
        return Reading(None, tuple(faults), (*warnings, f"{SECTION}.Enable is false"))
    faults += _missing(section, values)
    folder = _index_folder(configuration)
    if not folder.is_absolute() and file is not None:
        folder = file.parent / folder
    if not folder.is_absolute() and "NotesFile" not in section:
        faults.append(f"{SECTION}.NotesFile: missing; Orthanc's own folder is a relative path")
    if faults:
        return Reading(None, tuple(faults), tuple(warnings))
    values.setdefault("notes_file", folder / NOTES_NAME)
    values["stable_age_s"] = _stable_age_s(configuration)
    return Reading(Settings(**values), (), tuple(warnings))


def _missing(section: Mapping[str, object], values: Mapping[str, object]) -> list[str]:
    faults = []
    if "Modality" not in section:
        faults.append(f"{SECTION}.Modality: missing; the name of the bridge in DicomModalities")
    if "ControlUrl" in section and "TokenFile" not in section:
        faults.append(f"{SECTION}.TokenFile: missing; ControlUrl needs it")
    if section.get("Command") and "ControlUrl" not in section:
        faults.append(f"{SECTION}.ControlUrl: missing; with Command it tells who runs already")
    first, longest = values.get("first_wait_s", 5.0), values.get("max_wait_s", 600.0)
    if isinstance(first, float) and isinstance(longest, float) and longest < first:
        faults.append(f"{SECTION}.MaxWaitSeconds: less than FirstWaitSeconds")
    return faults


def _index_folder(configuration: Mapping[str, object]) -> Path:
    for key in ("IndexDirectory", "StorageDirectory"):
        if isinstance(folder := configuration.get(key), str) and folder:
            return Path(folder)
    return Path("OrthancStorage")  # Orthanc's default


def _stable_age_s(configuration: Mapping[str, object]) -> float:
    age = configuration.get("StableAge", _STABLE_AGE_S)
    return float(age) if isinstance(age, int | float) else _STABLE_AGE_S


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _FaultError("is true or false")
    return value


def _word(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _FaultError("is a text that is not empty")
    return value


def _name(value: object) -> str:
    word = _word(value)
    if "/" in word or not word.isprintable():
        raise _FaultError("is a name without a slash")
    return word


def _file(value: object) -> Path:
    path = Path(_word(value))
    if not path.is_absolute():
        raise _FaultError("is an absolute path")
    return path


def _url(value: object) -> str:
    word = _word(value).rstrip("/")
    try:
        parts = urlsplit(word)
        port = parts.port
    except ValueError:
        raise _FaultError("is no address") from None
    if parts.username is not None or parts.password is not None:
        raise _FaultError("holds no user or password; the token is in TokenFile")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port is None
        or parts.path
        or parts.query
    ):
        raise _FaultError("is http://HOST:PORT or https://HOST:PORT")
    return word


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise _FaultError("is a list: program and arguments")
    if value and not Path(value[0]).is_absolute():
        raise _FaultError("begins with the absolute path of a program")
    return tuple(value)


def _number(low: float, high: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise _FaultError("is a number")
        if not low <= value <= high:
            raise _FaultError(f"is {low:g} to {high:g}")
        return float(value)

    return check


def _count(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _FaultError(f"is a whole number, {low} to {high}")
        return value

    return check


_DAY_S = 86_400.0
#: Key of the section -> attribute of ``Settings`` and what checks a value.
_KEYS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "Enable": ("enable", _flag),
    "Modality": ("modality", _name),
    "ControlUrl": ("control_url", _url),
    "TokenFile": ("token_file", _file),
    "ControlCaFile": ("ca_file", _file),
    "Automatic": ("automatic", _flag),
    "ExistingSeries": ("existing_series", _flag),
    "NotesFile": ("notes_file", _file),
    "Command": ("command", _command),
    "StopTimeoutSeconds": ("stop_timeout_s", _number(0, 3600)),
    "StoresAtOnce": ("stores_at_once", _count(1, 16)),
    "FirstWaitSeconds": ("first_wait_s", _number(0.1, _DAY_S)),
    "MaxWaitSeconds": ("max_wait_s", _number(0.1, _DAY_S)),
    "GiveUpAfterHours": ("give_up_after_h", _number(0.01, 8760)),
}
