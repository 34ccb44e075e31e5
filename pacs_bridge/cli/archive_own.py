"""``pacs-bridge archive run --out``: in a process of its own, which is started again if it dies."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inference.reasons import Reason
from pacs_bridge.cli.archive_work import opened, refresh, remote_names, route_of, tell_wait
from pacs_bridge.cli.configuration import loaded
from pacs_bridge.cli.model_options import asked_structures
from pacs_bridge.cli.outcome import DONE, coded_failures, end_failed, end_wrong_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacs_bridge.archive.own_bridge import OwnWork
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.recipe import Recipe
    from pacs_bridge.archive.window import Pace
    from pacs_bridge.archive.work_process import Leaving
    from pacs_bridge.config.bridge import BridgeConfig
    from pacs_bridge.config.routes import RouteConfig
    from pacs_bridge.job_source import JobSources

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class OwnCall:
    """What the user asked for; goes to another process."""

    run_folder: Path
    options: dict[str, Any]
    pace: Pace
    as_json: bool
    quiet: bool

    @property
    def out(self) -> Path:
        """Where results are put."""
        folder: Path = self.options["out_folder"]
        return folder


@dataclass(frozen=True, slots=True)
class OwnOrder:
    """What every process of a run works by, whatever became of configuration and models since."""

    call: OwnCall
    config: BridgeConfig
    recipe: Recipe
    site: BridgeConfig | None  #: the configuration that was named
    last_run: int  #: of the plan, before the first process began

    @property
    def run_folder(self) -> Path:
        """With the plan."""
        return self.call.run_folder


def work_here(call: OwnCall, leaving: Leaving) -> bool:
    """Segment with a warm model; results go to ``--out``. Gives whether all is over."""
    from pacs_bridge.archive.work_process import WorkDiedError, keep_working

    order = checked(call)  # what is wrong with the call is said at once
    run_folder = call.run_folder
    try:
        with _held(call.out, order.recipe.model):
            status = keep_working(
                partial(work, order),
                leaving,
                partial(_open_series, run_folder),
                _tell_death,
                partial(_note_told_to_end, run_folder),
            )
    except WorkDiedError as error:
        detail = f"the process that does the work ended, {error}: see run.log"
        end_failed(Reason.INTERNAL_ERROR, detail, call.as_json)
    if status != DONE:  # it has said why
        raise click.exceptions.Exit(status)
    return _open_series(call.run_folder) == 0


def _tell_death(status: int) -> None:
    click.echo(f"the process that does the work ended, status {status}: another goes on", err=True)


def _open_series(run_folder: Path) -> int:
    from pacs_bridge.archive.accounts import open_series
    from pacs_bridge.archive.plan_file import PlanFile

    with PlanFile(run_folder) as plan:
        return open_series(plan)


def _note_told_to_end(run_folder: Path) -> None:
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.run_log import note_told_to_end
    from pacs_bridge.errors import BridgeError

    # a series that was alone in hand may be blamed, once, where this cannot be noted
    with suppress(BridgeError), PlanFile(run_folder) as plan:
        note_told_to_end(plan)


def work(order: OwnOrder, leaving: Leaving) -> int:
    """In the process that does it; gives its exit status."""
    from pacs_bridge.archive.run_log import WORK_LOCK, alone
    from pacs_bridge.cli.archive_progress import run_progress

    call = order.call
    try:
        with (
            coded_failures(call.as_json, name_files=False),
            alone(call.run_folder, lock=WORK_LOCK),
            run_progress(call.run_folder, call.quiet) as progress,
        ):
            return _run(order, leaving, progress)
    except click.exceptions.Exit as ending:
        return ending.exit_code


def _run(order: OwnOrder, leaving: Leaving, progress: Any) -> int:
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import note_results
    from pacs_bridge.archive.results_folder import ResultsFolder
    from pacs_bridge.archive.run_log import last_run
    from pacs_bridge.archive.running import OwnRun, warm_segmenters
    from pacs_bridge.archive.series_book import SeriesBook
    from pacs_bridge.clock import SystemClock
    from pacs_bridge.errors import BridgeError
    from pacs_bridge.models import UnknownDeviceError
    from pacs_bridge.time_limit import EX_SOFTWARE
    from pacs_bridge.worker import BrokenDeviceError

    call, config, recipe = order.call, order.config, order.recipe
    remote = _remote_sources(order)
    try:
        segmenters = warm_segmenters(config, recipe)
    except UnknownDeviceError as error:
        end_wrong_call(f"--device: {error}")
    with PlanFile(call.run_folder) as plan:
        _check_disk_of(plan, call.out)
        # not before all is there that it takes to make anew what is planned anew
        is_again = last_run(plan) > order.last_run
        refresh(plan, recipe, call.options, is_again)
        if not is_again:  # each result is looked at
            ResultsFolder(call.out).replan_missing(SeriesBook(plan))
        note_results(plan, call.out)
    run = OwnRun(call.run_folder, config, recipe, call.out, remote, segmenters)
    try:
        run.work(call.pace, leaving, SystemClock(), progress, tell_wait)
    except BrokenDeviceError:
        click.echo(f"{Reason.MODEL_ERROR}: the device computes no more in this process", err=True)
        return EX_SOFTWARE
    except Exception as error:
        if not isinstance(error, BridgeError):
            click.echo("a fault of this software: see run.log in the folder of the run", err=True)
        raise
    return DONE


def checked(call: OwnCall) -> OwnOrder:
    """The configuration of a run and what it makes, if it can be run as it was called."""
    from pacs_bridge.archive.own_bridge import OwnWork, own_config
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import check_complete, is_within, roots_of, rules_of
    from pacs_bridge.archive.recipe import recipe_of
    from pacs_bridge.archive.run_log import last_run
    from pacs_bridge.models import (
        default_models_folder,
        known_models,
        model_stores,
        preferred_model,
    )

    options = call.options
    site, route = _site(options)
    folder_of_site = None if site is None else site.models.folder
    models_folder = options["models_folder"] or folder_of_site or default_models_folder()
    stores = model_stores(models_folder)
    of_route = None if route is None else route.model
    model = options["model_name"] or of_route or preferred_model(stores)
    if model not in (known := known_models(stores)):
        end_wrong_call(f"--model {model}: {Reason.UNKNOWN_MODEL}; models here: {', '.join(known)}")
    with PlanFile(call.run_folder) as plan:
        check_complete(plan)
        if is_within(roots_of(plan), call.out):
            end_wrong_call("--out: what was planned lies in it: name another folder")
        kinds = tuple(dict.fromkeys(options["kinds"])) or _kinds(site, route)
        device, precision = options["device"], options["precision"]
        work = OwnWork(
            *(model, models_folder, kinds, device, precision, options["job_timeout_s"]),
            structures=asked_structures(options["structures"]),
        )
        work = _as_configured(work, options["given"], site, route)
        config = own_config(call.run_folder, work, rules_of(plan))
        _check_disk_of(plan, call.out)
        if (names := remote_names(plan)) and options["config_path"] is None:
            end_wrong_call(f"the plan has series at {', '.join(names)}: name the --config of them")
        recipe = recipe_of(config, config.routes[0], stores)
        return OwnOrder(call, config, recipe, site, last_run(plan))


def _site(options: dict[str, Any]) -> tuple[BridgeConfig | None, RouteConfig | None]:
    """The configuration that is named, and the route whose way of segmenting is wanted."""
    if options["config_path"] is None:
        if options["route"] is not None:
            end_wrong_call("--route: name the configuration with --config FILE")
        return None, None
    site = loaded(options["config_path"])
    return site, None if options["route"] is None else route_of(site, options["route"])


def _kinds(site: BridgeConfig | None, route: RouteConfig | None) -> tuple[str, ...]:
    """What the destinations of a route are given; both kinds without a route."""
    both = ("labelmap", "binary")
    if site is None or route is None:
        return both
    destinations = [site.destination(name) for name in route.destinations]
    wanted = {kind for each in destinations if each is not None for kind in each.kinds}
    return tuple(kind for kind in both if kind in wanted)


def _as_configured(
    work: OwnWork, given: frozenset[str], site: BridgeConfig | None, route: RouteConfig | None
) -> OwnWork:
    """What is not given on the command line is as the configuration has it."""
    if site is None:
        return work
    workers = site.workers
    return replace(
        work,
        device=work.device if "device" in given else workers.devices[0],
        precision=work.precision if "precision" in given else workers.precision,
        job_timeout_s=work.job_timeout_s or workers.job_timeout_s,
        max_attempts=workers.max_attempts,
        results=site.results,
        postprocessing=work.postprocessing if route is None else route.postprocessing,
        structures=work.structures or (() if route is None else route.structures),
    )


@contextmanager
def _held(out: Path, model: str) -> Iterator[None]:
    """Hold ``--out`` for the results of a model."""
    from pacs_bridge.archive.results_model import ForeignResultsError, held_for

    try:
        with held_for(out, model):
            yield
    except ForeignResultsError as error:
        end_wrong_call(f"--out: {error}: name another folder")


def _check_disk_of(plan: PlanFile, out: Path) -> None:
    """Results of this run that lay in ``--out`` are not made again while its disk is away."""
    from pacs_bridge.archive.planning import results_of
    from pacs_bridge.archive.results_model import is_marked
    from pacs_bridge.archive.series_book import SeriesBook

    if is_marked(out) or out.absolute() not in results_of(plan):
        return
    if next(SeriesBook(plan).done(), None) is not None:
        end_wrong_call(
            "--out: the results of this run lay there, and the folder is gone or empty: is its"
            " disk away? To make all of them again, name another folder"
        )


def _remote_sources(order: OwnOrder) -> dict[str, JobSources]:
    """The archives that a plan has series of."""
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planned_identities import PlannedIdentities
    from pacs_bridge.sources.configured_sources import RemoteSources

    with PlanFile(order.run_folder) as plan:
        names = remote_names(plan)
    if not names or order.site is None:
        return {}
    reserve_bytes = int(order.site.disk.reserve_free_gib * _GIB)
    plans = PlannedIdentities([order.run_folder])
    data_folder = order.config.data_folder
    return {
        name: RemoteSources(opened(order.site, name), data_folder, reserve_bytes, plans)
        for name in names
    }
