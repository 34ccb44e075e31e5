"""The ledger of a configuration, for commands that look at it from outside the service."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacs_bridge.cli.outcome import end_wrong_call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pacs_bridge.config.bridge import BridgeConfig
    from pacs_bridge.ledger.ledger import Ledger


def has_ledger(config: BridgeConfig) -> bool:
    """Whether a service has run here.

    Raises
    ------
    PermanentError
        ``data-folder-denied`` if this user may not look.
    """
    from inference.reasons import Reason
    from pacs_bridge.errors import PermanentError

    path = config.ledger_path
    try:
        return path.exists()
    except PermissionError as error:
        detail = f"{path}, as user id {os.geteuid()}: {error.strerror}"
        raise PermanentError(Reason.DATA_FOLDER_DENIED, detail) from error


@contextmanager
def opened_ledger(config: BridgeConfig, config_path: Path) -> Iterator[Ledger]:
    """The ledger, for the body; looking at it makes none: the call is wrong where there is none."""
    from pacs_bridge.ledger.ledger import Ledger

    path = config.ledger_path
    if not has_ledger(config):
        end_wrong_call(f"{config_path}: no ledger at {path}; the service has not run yet")
    ledger = Ledger.open(path)
    try:
        yield ledger
    finally:
        ledger.close()
