"""The worker as a process of its own: one a device."""

from __future__ import annotations

from collections.abc import Callable

from inference.engine.heap import keep_heap
from inference.errors import ModelError
from inference.model_store import locate
from inference.reasons import Reason
from inference.windows import Precision
from pacs_bridge.child import leave_on_signals, open_log, process_name
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.routes import RouteConfig
from pacs_bridge.errors import TransientError
from pacs_bridge.job_place import JobPlace, own_ledger
from pacs_bridge.late_segmenter import COUNTED
from pacs_bridge.models import (
    WarmSegmenters,
    damaged_models,
    found_device,
    model_stores,
    route_models,
)
from pacs_bridge.pipeline import Pipeline
from pacs_bridge.time_limit import EX_SOFTWARE
from pacs_bridge.worker import BrokenDeviceError, Worker

_POLL_S = 0.5


def run_worker(
    config: BridgeConfig,
    device: str,
    announce: Callable[[], None] = lambda: None,
    jobs: Callable[[BridgeConfig], JobPlace] = own_ledger,
) -> None:
    """Work until SIGTERM or SIGINT; the job in hand is given back. In the main thread.

    Parameters
    ----------
    config
        The whole configuration.
    device
        auto, cpu, cuda or cuda:N.
    announce
        Called once jobs are worked off: the model of the first route is loaded by then, or what
        there is too little memory for at this moment. Then no job is claimed before there is
        enough, see ``Fitness``.
    jobs
        Opens the place where jobs come from.

    Raises
    ------
    BridgeError
        If the place of jobs cannot be opened, or is not for this worker.
    ModelError
        If the model of a route is not whole, or the one that finds structures for it.
    UnknownDeviceError
        If this machine has no such device.
    SystemExit
        With status 70 if the device computes no more: a new process may use it.
    """
    leave = leave_on_signals()
    keep_heap()
    log = open_log(config, makes_key=jobs is own_ledger)
    stores = model_stores(config.models.folder)
    if any(route.structures for route in config.routes):  # none of these finds them
        for name, damage in damaged_models(stores):
            log.warning("model-damaged", model=name, reason=damage.reason, detail=damage.detail)
    for name in route_models(config.routes, stores):
        locate(name, stores).verify(name)
    asked = config.workers.precision
    precision = None if asked == "auto" else Precision(asked)
    segmenters = WarmSegmenters(stores, device, precision)
    shortage = _shortage(segmenters, config.routes[0])
    if not segmenters.device_computes():
        log.error("device-broken", device=device)
        raise SystemExit(EX_SOFTWARE)
    place = jobs(config)
    worker = Worker(config, place.queue, place.sources, segmenters, log, leave)
    if shortage is not None:
        log.error("model-not-loaded", device=device, reason=shortage[0], detail=shortage[1])
    if shortage is not None or found_device(device) != "cpu":
        worker.begin_with_trial(config.routes[0])
    pipeline = Pipeline(worker)
    work_one = pipeline.work_one if config.workers.overlap else worker.work_one
    announce()
    while not leave.is_set():
        try:
            busy = work_one(process_name())
        except TransientError as error:  # the queue; what was claimed runs out by itself
            log.warning("queue-unavailable", reason=error.reason, detail=error.detail)
            busy = False
        except BrokenDeviceError as error:
            log.error("device-broken", device=device, detail=str(error))
            raise SystemExit(EX_SOFTWARE) from error
        if not busy:
            leave.wait(_POLL_S)
    pipeline.drain()
    place.close()


def _shortage(segmenters: WarmSegmenters, route: RouteConfig) -> tuple[Reason, str] | None:
    """Load the model of a route; what that failed for, if it need not do so another time."""
    try:
        segmenters.get(route.model, route.postprocessing, route.structures)
    except ModelError as error:
        is_short = error.reason in (Reason.OOM_CPU, Reason.OOM_GPU)
        if not is_short and (error.reason not in COUNTED or segmenters.device_computes()):
            raise
        return error.reason, error.detail  # not the error: its frames hold memory
    return None
