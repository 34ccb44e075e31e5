"""The two ways of ``pacs-bridge archive run``: in its own process, or by a service."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inference.reasons import Reason
from pacs_bridge.cli.configuration import loaded
from pacs_bridge.cli.outcome import end_failed, end_wrong_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacs_bridge.archive.feeder import FeedState
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.running import Leaving, Pace, RunProgress
    from pacs_bridge.config.bridge import BridgeConfig
    from pacs_bridge.config.routes import RouteConfig
    from pacs_bridge.job_source import JobSources
    from pacs_bridge.sources.remote_archive import RemoteArchive

_GIB = 1 << 30


def work_here(
    run_folder: Path, options: dict[str, Any], pace: Pace, leaving: Leaving, progress: RunProgress
) -> FeedState:
    """Segment in this process, with a warm model; results go to ``--out``."""
    from pacs_bridge.archive.own_bridge import OwnWork, own_config
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import (
        check_complete,
        is_within,
        note_results,
        roots_of,
        rules_of,
    )
    from pacs_bridge.archive.recipe import recipe_of
    from pacs_bridge.archive.results_folder import ResultsFolder
    from pacs_bridge.archive.running import OwnRun, warm_segmenters
    from pacs_bridge.archive.series_book import SeriesBook
    from pacs_bridge.clock import SystemClock
    from pacs_bridge.models import (
        UnknownDeviceError,
        default_models_folder,
        known_models,
        model_stores,
        preferred_model,
    )

    stores = model_stores(options["models_folder"] or default_models_folder())
    model = options["model_name"] or preferred_model(stores)
    if model not in (known := known_models(stores)):
        end_wrong_call(f"--model {model}: {Reason.UNKNOWN_MODEL}; models here: {', '.join(known)}")
    plan = PlanFile(run_folder)
    check_complete(plan)
    out: Path = options["out_folder"]
    if is_within(roots_of(plan), out):
        end_wrong_call("--out: what was planned lies in it: name another folder")
    rules, sources = rules_of(plan), _remote_names(plan)
    refresh_kinds = tuple(dict.fromkeys(options["kinds"])) or ("labelmap", "binary")
    work = OwnWork(
        model,
        options["models_folder"] or default_models_folder(),
        refresh_kinds,
        options["device"],
        options["precision"],
    )
    config = own_config(run_folder, work, rules)
    recipe = recipe_of(config, config.routes[0], stores)
    _check_disk_of(plan, out)
    with _held(out, model):
        remote = _remote_sources(options["config_path"], sources, config, run_folder)
        try:
            segmenters = warm_segmenters(config, recipe)
        except UnknownDeviceError as error:
            end_wrong_call(f"--device {options['device']}: {error}")
        # not before all is there that it takes to make anew what is planned anew
        _refresh(plan, recipe.digest, options["retry_failed"])
        ResultsFolder(out).replan_missing(SeriesBook(plan))
        note_results(plan, out)
        plan.close()
        run = OwnRun(run_folder, config, recipe, out, remote, segmenters)
        return _worked(lambda: run.work(pace, leaving, SystemClock(), progress))


def _worked(work: Callable[[], FeedState]) -> FeedState:
    """The work of a run, and what is said where it ends by an error."""
    from pacs_bridge.errors import BridgeError
    from pacs_bridge.worker import BrokenDeviceError

    try:
        return work()
    except BrokenDeviceError:
        end_failed(Reason.MODEL_ERROR, "the device computes no more: run it again", False)
    except Exception as error:
        if not isinstance(error, BridgeError):
            click.echo("a fault of this software: see run.log in the folder of the run", err=True)
        raise


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


def work_by_service(
    run_folder: Path, options: dict[str, Any], pace: Pace, leaving: Leaving, progress: RunProgress
) -> FeedState:
    """Feed the ledger of a service; its workers do the work."""
    from pacs_bridge.archive.feeder import FeedOrder
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import check_complete
    from pacs_bridge.archive.recipe import recipe_of
    from pacs_bridge.archive.running import FedRun
    from pacs_bridge.clock import SystemClock
    from pacs_bridge.models import model_stores

    if options["config_path"] is None:
        end_wrong_call("name --out DIR to work here, or --config FILE of a service to feed")
    config = loaded(options["config_path"])
    route = _route(config, options["route"])
    recipe = recipe_of(config, route, model_stores(config.models.folder))
    plan = PlanFile(run_folder)
    check_complete(plan)
    files_source = _plan_source_name(config, run_folder, _has_files(plan))
    for name in _remote_names(plan):
        if config.source(name) is None:
            end_wrong_call(f"the plan has series at {name!r}: no such source in the configuration")
    _refresh(plan, recipe.digest, options["retry_failed"])
    plan.close()
    order = FeedOrder(
        route=route.name,
        destinations=route.destinations,
        recipe=recipe,
        files_source=files_source,
        window=pace.window,
        rate=pace.rate,
    )
    return FedRun(run_folder, config, order).work(leaving, SystemClock(), progress)


def _refresh(plan: Any, recipe: str, retry_failed: bool) -> None:
    from pacs_bridge.archive.series_book import SeriesBook, SeriesState

    SeriesBook(plan).refresh(recipe, (SeriesState.FAILED,) if retry_failed else ())


def _route(config: BridgeConfig, name: str | None) -> RouteConfig:
    if name is None:
        if len(config.routes) > 1:
            names = ", ".join(route.name for route in config.routes)
            end_wrong_call(f"--route: which of {names}?")
        return config.routes[0]
    route = config.route(name)
    if route is None:
        end_wrong_call(f"--route {name}: no such route in the configuration")
    return route


def _plan_source_name(config: BridgeConfig, run_folder: Path, is_needed: bool) -> str:
    """By which the workers of the service know the plan's files."""
    wanted = run_folder.resolve()
    for source in config.sources:
        if source.kind == "plan" and source.folder.resolve() == wanted:
            return source.name
    if is_needed:
        end_wrong_call(
            "the service does not know this plan's files; add to its configuration, and start it"
            f' again:\n[[sources]]\nname = "archive-run"\nkind = "plan"\nfolder = "{wanted}"'
        )
    return ""


def _has_files(plan: Any) -> bool:
    from pacs_bridge.archive.plan_file import FILES

    with plan.read() as connection:
        row = connection.execute(
            "SELECT 1 FROM series WHERE source = ? AND plan_reason IS NULL LIMIT 1", (FILES,)
        ).fetchone()
    return row is not None


def _remote_names(plan: Any) -> tuple[str, ...]:
    from pacs_bridge.archive.plan_file import FILES

    with plan.read() as connection:
        rows = connection.execute(
            "SELECT DISTINCT source FROM series WHERE source <> ? AND plan_reason IS NULL",
            (FILES,),
        ).fetchall()
    return tuple(row[0] for row in rows)


def opened(config: BridgeConfig, name: str) -> RemoteArchive:
    """The remote archive of a source of the configuration."""
    from pacs_bridge.sources.opening import remote_archive

    source = config.source(name)
    if source is None or source.kind == "plan":
        known = [each.name for each in config.sources if each.kind != "plan"]
        end_wrong_call(f"--source {name}: no such archive; there is {', '.join(known) or 'none'}")
    return remote_archive(source, config)


def _remote_sources(
    config_path: Path | None, names: tuple[str, ...], own: BridgeConfig, run_folder: Path
) -> dict[str, JobSources]:
    """The archives that a plan has series of, for a run in this process."""
    from pacs_bridge.archive.planned_identities import PlannedIdentities
    from pacs_bridge.sources.configured_sources import RemoteSources

    if not names:
        return {}
    if config_path is None:
        end_wrong_call(f"the plan has series at {', '.join(names)}: name the --config of them")
    config = loaded(config_path)
    reserve_bytes = int(config.disk.reserve_free_gib * _GIB)
    plans = PlannedIdentities([run_folder])
    return {
        name: RemoteSources(opened(config, name), own.data_folder, reserve_bytes, plans)
        for name in names
    }
