"""Reading the configuration file: all its faults at once, each with the path of its key."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.section import UNREPEATED
from pacs_bridge.queue import SPOOL

#: Keys where a secret may stand by mistake, instead of the file that holds it or within an address.
_MAY_BE_SECRET = re.compile(r"\b(?:url|auth|\w+_file)\b")
#: A value where a table or a list is wanted: nobody knows what it was meant to be.
_NO_TABLE = ("model_type", "model_attributes_type", "dict_type", "tuple_type", "source_kind")


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault: which key, what is wrong with it."""

    key: str  #: dotted path, ``routes[0].destinations``; empty for the file as a whole
    problem: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}" if self.key else self.problem


class ConfigError(Exception):
    """The configuration cannot be used; the command line exits with 2.

    Parameters
    ----------
    path
        The configuration file.
    faults
        Every fault that was found.
    """

    def __init__(self, path: Path, faults: Iterable[ConfigFault]) -> None:
        self.path = path
        self.faults = tuple(faults)
        super().__init__("\n".join([f"{path}:", *(f"  {fault}" for fault in self.faults)]))


def load_config(path: Path) -> BridgeConfig:
    """The configuration in ``path``.

    Raises
    ------
    ConfigError
        With every fault of the file: unknown and missing keys, wrong types and values,
        references to a destination that does not exist, names given twice.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else f"not TOML: {error}"
        raise ConfigError(path, [ConfigFault("", str(problem))]) from error
    faults = list(_reference_faults(table))
    try:
        # JSON, because strict types still let a list become a tuple and text a path there.
        config = BridgeConfig.model_validate_json(
            json.dumps(table, default=str), context={"folder": path.resolve().parent}
        )
    except ValidationError as error:
        faults[:0] = [
            _fault(one["type"], _key_path(one["loc"]), one["msg"], one["input"])
            for one in error.errors()
        ]
        raise ConfigError(path, faults) from error
    if faults:
        raise ConfigError(path, faults)
    return config


def check_models(config: BridgeConfig, known: Collection[str]) -> tuple[ConfigFault, ...]:
    """Routes whose model is not in the model store; the store itself is not read here."""
    return tuple(
        ConfigFault(
            f"routes[{index}].model",
            f"no model {route.model!r}; there is {', '.join(sorted(known)) or 'none'}",
        )
        for index, route in enumerate(config.routes)
        if route.model not in known
    )


def _reference_faults(table: dict[str, Any]) -> Iterable[ConfigFault]:
    """Faults between tables; found on the raw table so that other faults do not hide them."""
    destinations = list(_names(table.get("destinations")))
    for section, names in (
        ("destinations", destinations),
        ("sources", list(_names(table.get("sources")))),
        ("routes", list(_names(table.get("routes")))),
    ):
        for name, count in Counter(names).items():
            if section == "sources" and name == SPOOL:
                yield ConfigFault(section, f"the name {name!r} stands for what is received here")
            if count > 1:
                yield ConfigFault(section, f"the name {_shown(name)} is given {count} times")
    there = [name for name in destinations if not _is_address(name)]
    routes = table.get("routes")
    for index, route in enumerate(routes if isinstance(routes, list) else []):
        wanted = route.get("destinations") if isinstance(route, dict) else None
        for name in wanted if isinstance(wanted, list) else []:
            if isinstance(name, str) and name not in destinations:
                yield ConfigFault(
                    f"routes[{index}].destinations",
                    f"no destination {_shown(name)}; there is {', '.join(there) or 'none'}",
                )


def _names(rows: object) -> Iterable[str]:
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            yield row["name"]


def _key_path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.startswith("<"):
            continue  # which of several tables was meant, not a key
        else:
            path += f".{part}" if path else part
    return path


def _fault(kind: str, key: str, message: str, value: object) -> ConfigFault:
    """A fault in words; the value stands in them unless it may be a secret."""
    if kind == "extra_forbidden":
        return ConfigFault(key, "unknown key")
    if kind == "missing":
        return ConfigFault(key, "missing")
    text = message.removeprefix("Value error, ")
    if kind == UNREPEATED or not isinstance(value, str | int | float):
        return ConfigFault(key, text)
    if kind in _NO_TABLE or _MAY_BE_SECRET.search(key) or _is_address(value):
        is_quoted = isinstance(value, str) and (value in text or repr(value) in text)
        return ConfigFault(key, "not what belongs here" if is_quoted else text)
    return ConfigFault(key, f"{text} (is {value!r})")


def _is_address(value: object) -> bool:
    """Whether a text looks like an address, in which a password may stand."""
    return isinstance(value, str) and ("://" in value or "@" in value)


def _shown(name: str) -> str:
    return "(an address)" if _is_address(name) else repr(name)
