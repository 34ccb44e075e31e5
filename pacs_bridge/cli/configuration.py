"""The configuration file as commands see it: wrong ones end the command with status 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_bridge.cli.outcome import end_wrong_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacs_bridge.config.bridge import BridgeConfig

DEFAULT_CONFIG = Path("configs/bridge.toml")
CONFIG_VARIABLE = "PACS_BRIDGE_CONFIG"


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--config``."""
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar=CONFIG_VARIABLE,
        default=DEFAULT_CONFIG,
        show_default=True,
        help=f"Configuration file; also from ${CONFIG_VARIABLE}.",
    )(command)


def loaded(config_path: Path) -> BridgeConfig:
    """The configuration, or the end of the command with all its faults."""
    from pacs_bridge.config.load import ConfigError, load_config

    if not config_path.exists():
        end_wrong_call(
            f"no configuration at {config_path}: name one with --config FILE or ${CONFIG_VARIABLE}"
        )
    try:
        return load_config(config_path)
    except ConfigError as error:
        end_wrong_call(str(error))
