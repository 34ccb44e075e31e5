"""Reading the configuration file: all its faults at once, each with the path of its key."""

from __future__ import annotations

import json
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
            ConfigFault(_key_path(one["loc"]), _problem(one["type"], one["msg"], one["input"]))
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
                yield ConfigFault(section, f"the name {name!r} is given {count} times")
    routes = table.get("routes")
    for index, route in enumerate(routes if isinstance(routes, list) else []):
        wanted = route.get("destinations") if isinstance(route, dict) else None
        for name in wanted if isinstance(wanted, list) else []:
            if isinstance(name, str) and name not in destinations:
                yield ConfigFault(
                    f"routes[{index}].destinations",
                    f"no destination {name!r}; there is {', '.join(destinations) or 'none'}",
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


def _problem(kind: str, message: str, value: object) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    if kind == UNREPEATED:
        return message
    text = message.removeprefix("Value error, ")
    return f"{text} (is {value!r})" if isinstance(value, str | int | float) else text
