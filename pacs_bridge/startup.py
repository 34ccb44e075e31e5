"""What is looked at before the service starts, so that all that is wrong is said at once."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from inference.errors import InferenceError
from inference.model_store import locate
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.load import ConfigFault, check_models
from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.control.token import Token
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import KEY_NAME
from pacs_bridge.ledger.home import home_file
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.models import known_models, model_stores
from pacs_bridge.queue import DISPATCHER
from pacs_bridge.supervisor import ChildSpec


def startup_faults(config: BridgeConfig, is_running: bool = False) -> tuple[ConfigFault, ...]:
    """Everything that would keep the service from working: models, ports, files, secrets.

    Nothing is made or changed.

    Parameters
    ----------
    config
        The whole configuration.
    is_running
        Whether the service runs already, so that its ports are taken.
    """
    return (
        *_model_faults(config),
        *(() if is_running else _port_faults(config)),
        *_folder_faults(config),
        *_log_faults(config),
        *_token_faults(config),
        *_secret_faults(config),
    )


def demonstration_routes(config: BridgeConfig) -> tuple[tuple[str, str], ...]:
    """Name and model of each route whose model is for demonstration; of a service that may start.

    Raises
    ------
    ModelError
        If a model is not there.
    """
    stores = model_stores(config.models.folder)
    return tuple(
        (route.name, route.model)
        for route in config.routes
        if locate(route.model, stores).manifest(route.model).demonstration
    )


def child_specs(config: BridgeConfig, config_path: Path) -> tuple[ChildSpec, ...]:
    """The processes of one machine: listener, workers, sender, perhaps dispatcher and control.

    There is a worker a device, but on a machine whose jobs are handed over.
    """

    def child(name: str, command: str, *options: str) -> ChildSpec:
        program = (sys.executable, "-m", "pacs_bridge", command)
        return ChildSpec(name, (*program, "--config", str(config_path), *options))

    queue = config.queue
    workers = (
        ()
        if queue is not None and not queue.local_workers
        else tuple(
            child(f"worker{number}", "work", "--device", device, *_own_jobs(config))
            for number, device in enumerate(config.workers.devices)
        )
    )
    control = () if config.control is None else (child("control", "control"),)
    dispatcher = () if queue is None else (child("dispatcher", "dispatch"),)
    return (child("listener", "listen"), *workers, *dispatcher, child("sender", "send"), *control)


def _own_jobs(config: BridgeConfig) -> tuple[str, ...]:
    """What keeps a worker of this machine from the queue that is configured for those elsewhere."""
    return () if config.queue is None else ("--own-ledger",)


def keep_handed_over(ledger: Ledger, config: BridgeConfig) -> None:
    """What was handed over stays so while this machine starts again, or comes back for good.

    Raises
    ------
    TransientError
        If the ledger cannot be written.
    """
    if config.queue is None:
        ledger.jobs.give_back(DISPATCHER)
    else:
        ledger.jobs.prolong(DISPATCHER, config.workers.lease_s)


def _model_faults(config: BridgeConfig) -> tuple[ConfigFault, ...]:
    stores = model_stores(config.models.folder)
    try:
        unknown = check_models(config, known_models(stores))
    except OSError as error:
        problem = f"{config.models.folder}: {error.strerror}"
        return (ConfigFault("models.folder", problem),)
    if unknown:
        return unknown
    faults = []
    for index, route in enumerate(config.routes):
        try:
            locate(route.model, stores).manifest(route.model)
        except InferenceError as error:
            faults.append(ConfigFault(f"routes[{index}].model", str(error)))
    return tuple(faults)


def _port_faults(config: BridgeConfig) -> tuple[ConfigFault, ...]:
    wanted = [("listener", config.listener.bind, config.listener.port)]
    if config.control is not None:
        wanted.append(("control", config.control.bind, config.control.port))
    faults = []
    for section, bind, port in wanted:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind, port))
                probe.listen(1)
            except OSError as error:
                problem = f"cannot listen at {bind}:{port}: {error.strerror}"
                faults.append(ConfigFault(f"{section}.port", problem))
    return tuple(faults)


def _folder_faults(config: BridgeConfig) -> tuple[ConfigFault, ...]:
    """What of the data folder this user may not use: other processes may have been another one."""
    folder = config.data_folder
    if problem := _problem(folder, os.R_OK | os.W_OK | os.X_OK):
        return (ConfigFault("data_folder", problem),)
    own = os.R_OK | os.W_OK
    ledger = config.ledger_path
    wanted = {folder / KEY_NAME: os.R_OK, ledger: own, home_file(ledger): own}
    problems = (_problem(path, access) for path, access in wanted.items())
    return tuple(ConfigFault("data_folder", each) for each in problems if each)


def _log_faults(config: BridgeConfig) -> tuple[ConfigFault, ...]:
    problem = "" if config.log.file is None else _problem(config.log.file, os.W_OK)
    return (ConfigFault("log.file", problem),) if problem else ()


def _token_faults(config: BridgeConfig) -> tuple[ConfigFault, ...]:
    """What control would not start for; where there is no token yet it is made."""
    if config.control is None:
        return ()
    path = config.control_token_path
    problem = _problem(path, os.R_OK)
    if not problem and path.exists():
        try:
            Token.load(path)
        except PermanentError as error:
            problem = error.detail
    return (ConfigFault("control.token_file", problem),) if problem else ()


def _problem(path: Path, access: int) -> str:
    """Why a file or folder cannot be used so, or not be made where it is not there yet."""
    place, wanted, is_hidden = path, access, False
    while place != place.parent:
        try:
            if place.exists():
                break
        except PermissionError:  # a folder above may not be searched: nobody knows
            is_hidden = True
        except OSError as error:
            return f"{path}: {error.strerror}"
        place, wanted = place.parent, os.W_OK | os.X_OK
    if place != path and not place.is_dir():
        return f"{path}: {place} is no folder"
    if os.access(place, wanted):
        return ""
    used = "written" if access & os.W_OK else "read"
    may_be = is_hidden or place == path
    what = f"cannot be {used}" if may_be else f"cannot be made in {place}"
    return f"{path}: {what} by user id {os.geteuid()}"


def _secret_faults(config: BridgeConfig) -> tuple[ConfigFault, ...]:
    """Files of secrets and certificates that cannot be read; what is in them is not looked at."""
    tables = (
        (f"{kind}[{number}]", table)
        for kind, listed in (("destinations", config.destinations), ("sources", config.sources))
        for number, table in enumerate(listed)
    )
    return tuple(
        ConfigFault(f"{where}.{key}", _unread(key, file))
        for where, table in tables
        if isinstance(table, WebServiceConfig)
        for key, file in table.files()
        if not os.access(file, os.R_OK)
    )


def _unread(key: str, file: Path) -> str:
    """Why a file cannot be read; what is no file may be the secret that belongs into it."""
    if key != "tls.ca_file" and not os.path.exists(file):  # noqa: PTH110 - never raises
        return "no file of this name is there, or this user may not see it"
    return f"{file}: cannot be read"
