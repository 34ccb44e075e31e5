"""What ``doctor`` looks at, one check after the other."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from inference.errors import InferenceError
from inference.model_store import ModelStore, locate
from pacs_bridge.clock import SystemClock
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.destinations import DestinationConfig, StowDestinationConfig
from pacs_bridge.config.queue import QueueConfig
from pacs_bridge.config.routes import RouteConfig
from pacs_bridge.config.sources import PlanSourceConfig, SourceConfig
from pacs_bridge.deliver.echo import ask
from pacs_bridge.deliver.stow import StowClient
from pacs_bridge.errors import BridgeError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.glance import LedgerGlance
from pacs_bridge.ledger.home import LedgerHome
from pacs_bridge.ledger.schema import MIGRATIONS
from pacs_bridge.ledger.views import LedgerView
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.log import JsonLog
from pacs_bridge.machine import Machine
from pacs_bridge.models import (
    UnknownDeviceError,
    damaged_models,
    found_device,
    model_stores,
    route_models,
)
from pacs_bridge.network_disk import network_disk
from pacs_bridge.sources.opening import remote_archive
from pacs_bridge.startup import startup_faults

_GIB = 1024**3
_KEY_BYTES = 32
#: adjtimex(2): the clock is not synchronised.
_TIME_ERROR = 5
_TIMEX_BYTES = 256


class Health(StrEnum):
    """How a check ended."""

    GOOD = "good"
    DOUBT = "doubt"  #: works, and somebody should look at it
    BAD = "bad"  #: keeps the service from working


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check."""

    subject: str
    health: Health
    detail: str


def check_up(config: BridgeConfig) -> tuple[CheckResult, ...]:
    """Every check of an installation whose configuration could be loaded; changes nothing of it."""
    apply_library_settings()
    return (
        CheckResult("configuration", Health.GOOD, f"{len(config.routes)} routes"),
        *_start(config),
        *_models(config),
        *_finders(config),
        *_devices(config),
        _disk(config),
        _ledger(config),
        _clock(),
        *(_destination(each, config) for each in config.destinations),
        *(_source(each, config) for each in config.sources),
        *(() if config.queue is None else (_queue(config.queue),)),
    )


def check_worker(config: BridgeConfig, queue: QueueConfig) -> tuple[CheckResult, ...]:
    """Every check of a machine that works for a bridge elsewhere; changes nothing.

    It listens nowhere, sends nothing and has no ledger.

    Parameters
    ----------
    config
        Of the worker.
    queue
        Its jobs.
    """
    apply_library_settings()
    return (
        CheckResult("configuration", Health.GOOD, f"{len(config.routes)} routes"),
        *_models(config),
        *_finders(config),
        *_devices(config),
        _shared_folder(config),
        _clock(),
        *(_source(each, config) for each in config.sources if not _is_planned(each)),
        _queue(queue),
    )


def _is_planned(source: SourceConfig) -> bool:
    return isinstance(source, PlanSourceConfig)  # its files alone are looked for elsewhere


def _shared_folder(config: BridgeConfig) -> CheckResult:
    """Whether the folder is that of a bridge, and lets this user work in it."""
    from pacs_bridge.postgres.ticket import identity

    folder = config.data_folder
    try:
        identity(folder)
        IdentityHash.known(folder)
    except BridgeError as error:
        return CheckResult("data_folder", Health.BAD, str(error))
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        detail = f"{folder}: cannot be written by user id {os.geteuid()}"
        return CheckResult("data_folder", Health.BAD, detail)
    return CheckResult("data_folder", Health.GOOD, f"{folder} is a bridge's, which hands jobs over")


def _start(config: BridgeConfig) -> Iterator[CheckResult]:
    """What `serve` looks at before it starts."""
    try:
        is_running = _home(config).is_in_use()
    except BridgeError:  # the ledger's own check says why
        is_running = False
    faults = startup_faults(config, is_running)
    for fault in faults:
        yield CheckResult(fault.key, Health.BAD, fault.problem)
    if not faults:
        ports = "the service has its ports already" if is_running else "ports are free"
        yield CheckResult("start", Health.GOOD, f"{ports}; models, files and secrets are there")


def _models(config: BridgeConfig) -> Iterator[CheckResult]:
    stores = model_stores(config.models.folder)
    for name in dict.fromkeys(route.model for route in config.routes):
        try:
            manifest = locate(name, stores).verify(name)
        except InferenceError as error:
            yield CheckResult(f"model {name}", Health.BAD, str(error))
        except OSError as error:
            problem = f"{config.models.folder}: {error.strerror}"
            yield CheckResult(f"model {name}", Health.BAD, problem)
        else:
            health = Health.DOUBT if manifest.demonstration else Health.GOOD
            detail = f"{manifest.weights_sha256[:12]}, {manifest.intended_use}"
            yield CheckResult(f"model {name}", health, detail)
            routes = [each.name for each in config.routes if each.model == name]
            for route in routes if manifest.demonstration else ():
                yield CheckResult(f"route {route}", Health.DOUBT, f"{name} is for demonstration")


def _finders(config: BridgeConfig) -> Iterator[CheckResult]:
    """Models that find the structures of routes for their models, and those that cannot."""
    stores = model_stores(config.models.folder)
    told = {route.model for route in config.routes}
    routes = [route for route in config.routes if route.structures]
    try:
        for route in routes:
            with suppress(InferenceError):  # its own model, which was told of
                for name in route_models([route], stores):
                    if name not in told:
                        told.add(name)
                        yield _finder(name, route, stores)
        for name, damage in damaged_models(stores) if routes else ():
            if name not in told:
                detail = f"{damage}: finds no structures for other models"
                yield CheckResult(f"model {name}", Health.DOUBT, detail)
    except OSError as error:
        problem = f"{config.models.folder}: {error.strerror}"
        yield CheckResult("models.folder", Health.BAD, problem)


def _finder(name: str, route: RouteConfig, stores: Sequence[ModelStore]) -> CheckResult:
    try:
        manifest = locate(name, stores).verify(name)
    except InferenceError as error:
        return CheckResult(f"model {name}", Health.BAD, str(error))
    detail = f"{manifest.weights_sha256[:12]}, finds structures for route {route.name}"
    return CheckResult(f"model {name}", Health.GOOD, detail)


def _devices(config: BridgeConfig) -> Iterator[CheckResult]:
    for device in dict.fromkeys(config.workers.devices):
        try:
            found = found_device(device)
        except UnknownDeviceError as error:
            yield CheckResult(f"device {device}", Health.BAD, str(error))
        else:
            yield CheckResult(f"device {device}", Health.GOOD, found)


def _disk(config: BridgeConfig) -> CheckResult:
    folder = config.data_folder
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free_gib = shutil.disk_usage(there).free / _GIB
    except OSError as error:
        return CheckResult("disk", Health.BAD, f"{folder}: {error.strerror}")
    wanted_gib = config.disk.accept_above_free_gib
    detail = f"{free_gib:.1f} GiB free at {folder}, associations need {wanted_gib:g}"
    if free_gib <= wanted_gib:
        return CheckResult("disk", Health.BAD, detail)
    if kind := network_disk(there):
        detail += f"; on a network disk ({kind}), where SQLite asks for one of this machine"
    return CheckResult("disk", Health.DOUBT if kind else Health.GOOD, detail)


def _home(config: BridgeConfig) -> LedgerHome:
    return LedgerHome(config.ledger_path, Machine.here(SystemClock().boot_id()))


def _ledger(config: BridgeConfig) -> CheckResult:
    """Looks only: it may be the ledger of a bridge that works, here or on another machine."""
    home = _home(config)
    try:
        if not config.ledger_path.exists():
            return CheckResult("ledger", Health.GOOD, "none yet")
        if refusal := home.refusal():
            detail = f"{refusal}: `serve` would be refused here, workers of its queue are not"
            return CheckResult("ledger", Health.DOUBT, detail)
        glance = LedgerGlance(config.ledger_path, home.is_in_use())
        version = glance.version()
        if version > len(MIGRATIONS):
            detail = f"version {version}, of a later program than this one"
            return CheckResult("ledger", Health.BAD, detail)
        if version < len(MIGRATIONS):
            detail = f"version {version}, brought up to {len(MIGRATIONS)} at the next start"
            return CheckResult("ledger", Health.GOOD, detail)
        view = LedgerView(glance)
        newest = max((each.state_at for each in view.jobs(limit=1)), default=None)
        counts = view.state_counts()
    except BridgeError as error:
        return CheckResult("ledger", Health.BAD, str(error))
    except OSError as error:
        return CheckResult("ledger", Health.BAD, f"{config.ledger_path}: {error.strerror}")
    if newest is not None and newest > datetime.now(UTC):
        return CheckResult("ledger", Health.DOUBT, f"written at {newest:%F %T} UTC, in the future")
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    return CheckResult("ledger", Health.GOOD, states or "empty")


def _queue(queue: QueueConfig) -> CheckResult:
    """Whether jobs can be handed over, and whether anybody takes them."""
    from pacs_bridge.postgres.standing import standing

    subject = f"queue {queue.name}"
    try:
        found = standing(queue)
    except BridgeError as error:
        return CheckResult(subject, Health.BAD, str(error))
    if found is None:
        return CheckResult(subject, Health.GOOD, "none yet")
    idle = found.waiting and not found.workers
    return CheckResult(subject, Health.DOUBT if idle else Health.GOOD, str(found))


def _clock() -> CheckResult:
    """Whether the kernel holds the clock synchronised; content dates are read by people."""
    now = datetime.now(UTC)
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: read only
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state == _TIME_ERROR:
        return CheckResult("clock", Health.DOUBT, f"{now:%F %T} UTC, not synchronised")
    if state < 0:
        return CheckResult("clock", Health.DOUBT, f"{now:%F %T} UTC, cannot be asked")
    return CheckResult("clock", Health.GOOD, f"{now:%F %T} UTC, synchronised")


def _destination(destination: DestinationConfig, config: BridgeConfig) -> CheckResult:
    subject = f"destination {destination.name}"
    if isinstance(destination, StowDestinationConfig):
        return _stow_destination(subject, StowClient(destination, config.data_folder))
    try:
        answer = ask(destination, destination.calling_ae_title or config.listener.ae_title)
    except BridgeError as error:
        return CheckResult(subject, Health.BAD, str(error))
    taken = [kind for kind in destination.kinds if kind in answer.kinds]
    detail = f"{answer.echo}; accepts {', '.join(taken) or 'none of the kinds of this site'}"
    fit = answer.is_alive and taken
    return CheckResult(subject, Health.GOOD if fit else Health.BAD, detail)


def _stow_destination(subject: str, client: StowClient) -> CheckResult:
    try:
        reply = client.ask()
    except BridgeError as error:
        return CheckResult(subject, Health.BAD, str(error))
    finally:
        client.close()
    return CheckResult(subject, Health.GOOD if reply.is_sure else Health.DOUBT, reply.said)


def _source(source: SourceConfig, config: BridgeConfig) -> CheckResult:
    subject = f"source {source.name}"
    if isinstance(source, PlanSourceConfig):
        try:
            problem = "" if source.folder.is_dir() else ": no such folder"
        except OSError as error:
            problem = f": {error.strerror}"
        return CheckResult(
            subject, Health.BAD if problem else Health.GOOD, f"{source.folder}{problem}"
        )
    try:
        # no file is made for the log, and none that root would own
        log = JsonLog.open(None, IdentityHash(os.urandom(_KEY_BYTES)), "error")
        return CheckResult(subject, Health.GOOD, remote_archive(source, config, log).ask())
    except BridgeError as error:
        return CheckResult(subject, Health.BAD, str(error))
