"""``pacs-bridge archive run`` by a service, and what it has in common with a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pacs_bridge.cli.configuration import loaded
from pacs_bridge.cli.outcome import end_wrong_call, refuse_given

if TYPE_CHECKING:
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.recipe import Recipe
    from pacs_bridge.archive.running import RunProgress
    from pacs_bridge.archive.window import Pace
    from pacs_bridge.archive.work_process import Leaving
    from pacs_bridge.config.bridge import BridgeConfig
    from pacs_bridge.config.routes import RouteConfig
    from pacs_bridge.errors import TransientError
    from pacs_bridge.sources.remote_archive import RemoteArchive


#: Options of ``archive run`` that mean nothing to a service.
_OF_OWN_RUNS: Final = (
    *("model_name", "models_folder", "kinds", "device", "precision", "job_timeout_s"),
    "structures",
)


def work_by_service(
    run_folder: Path, options: dict[str, Any], pace: Pace, leaving: Leaving, progress: RunProgress
) -> bool:
    """Feed the ledger of a service, whose workers do the work; gives whether all is over."""
    from pacs_bridge.archive.feeder import FeedOrder
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import check_complete
    from pacs_bridge.archive.recipe import recipe_of
    from pacs_bridge.archive.running import FedRun
    from pacs_bridge.clock import SystemClock
    from pacs_bridge.models import model_stores

    if options["config_path"] is None:
        end_wrong_call("name --out DIR to work here, or --config FILE of a service to feed")
    refuse_given(_OF_OWN_RUNS, "only with --out: a service works as it is configured")
    config = loaded(options["config_path"])
    route = route_of(config, options["route"])
    recipe = recipe_of(config, route, model_stores(config.models.folder))
    with PlanFile(run_folder) as plan:
        check_complete(plan)
        files_source = _plan_source_name(config, run_folder, _has_files(plan))
        for name in remote_names(plan):
            if config.source(name) is None:
                unknown = f"the plan has series at {name!r}: no such source in the configuration"
                end_wrong_call(unknown)
        refresh(plan, recipe, options)
    order = FeedOrder(
        route=route.name,
        destinations=route.destinations,
        recipe=recipe,
        files_source=files_source,
        window=pace.window,
        rate=pace.rate,
    )
    run = FedRun(run_folder, config, order)
    return run.work(leaving, SystemClock(), progress, tell_wait).is_over


def tell_wait(error: TransientError) -> None:
    """Say on standard error why a run waits."""
    click.echo(f"waiting: {error.reason}: {error.detail}", err=True)


def refresh(
    plan: PlanFile, recipe: Recipe, options: dict[str, Any], is_again: bool = False
) -> None:
    """Plan anew what is stale and has no result; and what failed or has one, if that is wanted.

    Not where this call has worked before, in a process that died: what failed since has had its
    turn. How many results are stale is not said again then either.
    """
    from pacs_bridge.archive.series_book import SeriesBook, SeriesState

    book = SeriesBook(plan)
    book.note_lasting(recipe.digest, recipe.lasting)
    stale, redo = book.stale_results(recipe.digest), bool(options["redo_stale"])
    wanted = (
        (SeriesState.FAILED, options["retry_failed"]),
        (SeriesState.REFUSED, options.get("retry_refused")),
    )
    again = tuple(state for state, is_wanted in wanted if is_wanted and not is_again)
    book.refresh(recipe.digest, again, redo)
    if stale.count and not is_again:
        done = "they are made again" if redo else "they stay: --redo-stale makes them again"
        click.echo(
            f"{stale.count} results are stale ({stale.by_files} by their files,"
            f" {stale.by_recipe} by model or settings): {done}",
            err=True,
        )


def route_of(config: BridgeConfig, name: str | None) -> RouteConfig:
    """The route of this name; without one the only route that there is."""
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


def _has_files(plan: PlanFile) -> bool:
    from pacs_bridge.archive.plan_file import FILES

    with plan.read() as connection:
        row = connection.execute(
            "SELECT 1 FROM series WHERE source = ? AND plan_reason IS NULL LIMIT 1", (FILES,)
        ).fetchone()
    return row is not None


def remote_names(plan: PlanFile) -> tuple[str, ...]:
    """The archives that a plan is to run series of."""
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
