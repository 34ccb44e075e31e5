"""``pacs-bridge archive``: many series, from a plan to its account."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_bridge.cli.archive_account import (
    counted,
    known_counts,
    plain,
    print_account,
    print_counts,
)
from pacs_bridge.cli.archive_ending import plan_check, run_leaving
from pacs_bridge.cli.archive_own import OwnCall, work_here
from pacs_bridge.cli.archive_progress import plan_progress, run_progress
from pacs_bridge.cli.archive_work import opened, work_by_service
from pacs_bridge.cli.configuration import CONFIG_VARIABLE, loaded
from pacs_bridge.cli.model_options import (
    device_option,
    kind_option,
    model_option,
    models_option,
    precision_option,
    structures_option,
)
from pacs_bridge.cli.outcome import (
    FAILED,
    coded_failures,
    end_wrong_call,
    given_names,
    refuse_given,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacs_bridge.archive.planning import RemoteInput
    from pacs_bridge.archive.window import Pace
    from pacs_bridge.config.bridge import BridgeConfig

_UNFINISHED = "the plan was ended before it was complete, or is being made: plan again"
_DAY = click.DateTime(["%Y-%m-%d", "%Y%m%d"])
_OF_QUERIES = ("from_date", "to_date", "study_description", "series_description", "body_part")


@click.group()
def archive() -> None:
    """Segment many series: plan, run, status, report.

    The four commands share the folder of a run, --run DIR. A plan looks at headers alone and
    says of every series whether it will run, or for which reason it will not. A run can be
    ended at any moment and begun again. The report accounts for every series.
    """


def _run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--run",
        "run_folder",
        metavar="DIR",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the run: the plan and what is under way; made by plan.",
    )(command)


def _config_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar=CONFIG_VARIABLE,
        help=f"{help_text} Also from ${CONFIG_VARIABLE}.",
    )


@archive.command()
@click.argument("inputs", metavar="[INPUT]...", nargs=-1, type=click.Path(path_type=Path))
@_run_option
@click.option(
    "--manifest",
    metavar="FILE.csv",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="List of series UIDs, or of folders and files: only these.",
)
@click.option("--source", metavar="NAME", help="One of the configuration's [[sources]]: query it.")
@_config_option("Has the sources and the limits for series.")
@click.option("--from", "from_date", type=_DAY, help="Query: studies of this day or later.")
@click.option("--to", "to_date", type=_DAY, help="Query: studies of this day or earlier.")
@click.option("--study-description", default="", help="Query: * and ? stand for any characters.")
@click.option("--series-description", default="", help="Query: the same.")
@click.option("--body-part", default="", help="Query: Body Part Examined.")
@click.option(
    "--min-slices",
    type=click.IntRange(min=2),
    help="Skip stacks with fewer slices; remembered, and before what --config says.",
)
@click.option("--processes", type=click.IntRange(min=1), help="That read headers; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def plan(as_json: bool, quiet: bool, **options: Any) -> None:
    """Say what will run of an archive and what will not, from headers alone.

    INPUT is any number of folders, zip files and files, searched to the bottom; names do not
    matter. Called again, without INPUT too, it reads only what is new or changed since. The
    limits for series stay those of the last call where none are given.
    SIGTERM and ctrl-C end it soon, a second one at once; the next call goes on.
    """
    from pacs_bridge.archive.accounts import outcome_counts
    from pacs_bridge.archive.manifest import UnusableListError
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import (
        PlanEndedError,
        PlanInputs,
        WrongFolderError,
        is_within,
        make_plan,
    )
    from pacs_bridge.archive.run_log import alone

    if options["source"] is None:
        refuse_given(_OF_QUERIES, "only with --source: they are asked of an archive")
    config = _optional(options["config_path"])
    run_folder: Path = options["run_folder"]
    if is_within(options["inputs"], run_folder):  # before anything is written there
        end_wrong_call("--run: what is to be planned lies in it: name another folder")
    with coded_failures(as_json, name_files=False):
        with alone(run_folder, "plan"), plan_progress(quiet) as progress, plan_check() as check:
            inputs = PlanInputs(
                paths=options["inputs"],
                manifest=options["manifest"],
                remote=_remote(config, options),
                processes=options["processes"],
                min_slices=options["min_slices"],
            )
            rules = None if config is None else config.series.rules()
            try:
                tally = make_plan(run_folder, inputs, rules, progress, check)
            except UnusableListError as error:
                end_wrong_call(f"--manifest: {error}")
            except WrongFolderError as error:
                end_wrong_call(str(error))
            except PlanEndedError:
                click.echo("ended before the plan was complete: plan again", err=True)
                raise click.exceptions.Exit(FAILED) from None
        with PlanFile(run_folder) as known:
            counts = outcome_counts(known)
    if as_json:
        click.echo(json.dumps(asdict(tally) | counted(counts), indent=2))
        return
    print_counts(counts)
    if tally.unread_lines:
        click.echo(f"{tally.unread_lines} lines of the list name no series and no path", err=True)
    click.echo(
        f"{tally.files_met} files met, {tally.files_read} read,"
        f" {tally.series_examined} series examined"
    )


@archive.command()
@_run_option
@click.option(
    "--out",
    "out_folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Work in this process, and put the results here.",
)
@_config_option(
    "Without --out: the service whose workers do the work. With it: the sources, [results],"
    " [workers] and [models]."
)
@click.option(
    "--route",
    metavar="NAME",
    help="Of --config; without --out: by default its only one. With it: whose model, kinds and"
    " postprocessing are taken where no option says otherwise; default: none.",
)
@model_option
@models_option
@kind_option
@device_option
@precision_option
@structures_option
@click.option("--between", metavar="HH:MM-HH:MM", help="Begin series at these local hours only.")
@click.option("--rate", metavar="N/h", help="Begin no more than so many; also N/min, N/d.")
@click.option(
    "--job-timeout",
    "job_timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="With --out: a series that takes longer ends as failed; default: two hours.",
)
@click.option("--retry-failed", is_flag=True, help="Run again what failed, not what was refused.")
@click.option(
    "--retry-refused",
    is_flag=True,
    help="Run again what was refused, such as series that a PACS has corrected since.",
)
@click.option(
    "--redo-stale",
    is_flag=True,
    help="Make results again whose files, model or settings have changed since.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run(as_json: bool, quiet: bool, **options: Any) -> None:
    """Run a plan; go on where an earlier run ended.

    With --out the series are segmented in this process, and the results lie in DIR. Without it
    they are fed, a few at a time, to the service of --config, which works them off after all
    that it receives and delivers the results by its route.

    What has a result already is not run again. How many results are stale, because their files,
    the model or a setting have changed since, is said; --redo-stale makes them again. The first
    SIGTERM or ctrl-C lets what is in hand be finished, a second one gives it back.
    """
    from pacs_bridge.archive.run_log import alone

    leaving, pace = run_leaving(), _pace(options["between"], options["rate"])
    run_folder: Path = options["run_folder"]
    options["given"] = given_names()
    with coded_failures(as_json, name_files=False):
        with alone(run_folder):
            if options["out_folder"] is None:
                with run_progress(run_folder, quiet) as progress:
                    is_over = work_by_service(run_folder, options, pace, leaving, progress)
            else:
                is_over = work_here(OwnCall(run_folder, options, pace, as_json, quiet), leaving)
        counts = known_counts(run_folder)
    if as_json:
        click.echo(json.dumps({"is_over": is_over} | counted(counts), indent=2))
    else:
        print_counts(counts)
    if not is_over:
        click.echo("ended before all was done: run it again", err=True)
        raise click.exceptions.Exit(FAILED)


@archive.command()
@_run_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(run_folder: Path, as_json: bool) -> None:
    """Say how far a plan has been run; beside a run, too."""
    from pacs_bridge.archive.accounts import recent_an_hour
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import is_complete

    with coded_failures(as_json, name_files=False):
        with PlanFile(run_folder) as known:
            speed = recent_an_hour(known)
            is_whole = is_complete(known)
        counts = known_counts(run_folder)
    if not is_whole:
        click.echo(_UNFINISHED, err=True)
    left = sum(count.series for count in counts if count.state in ("planned", "waiting"))
    if as_json:
        told = {"left": left, "series_an_hour": speed, "is_plan_complete": is_whole}
        click.echo(json.dumps(told | counted(counts), indent=2))
        return
    print_counts(counts)
    if speed and left:
        click.echo(f"{left} left; of late {speed:g} an hour: {left / speed:.1f} hours")


@archive.command()
@_run_option
@click.option("--csv", "csv_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--parquet", "parquet_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path)
)
@click.option(
    "--html", "html_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--title", default="", help="Of the page; do not name a patient.")
@click.option(
    "--cost-an-hour",
    type=click.FloatRange(min=0),
    help="Of the machine, in any money: what each stage costs is told, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(run_folder: Path, as_json: bool, **options: Any) -> None:
    """Account for every series of a plan, by outcome and reason.

    --csv and --parquet write a row a series, --html a page that needs nothing else. No name of
    a patient, a file or a folder is in them; series are named by UID in the tables.
    """
    if not options["html_path"]:
        refuse_given(("title",), "only with --html")
    from pacs_bridge.archive.accounts import account_of, series_lines
    from pacs_bridge.archive.cost import MachineCost
    from pacs_bridge.archive.plan_file import PlanFile
    from pacs_bridge.archive.planning import is_complete
    from pacs_bridge.archive.report_page import PageText, page
    from pacs_bridge.archive.report_table import ParquetMissingError, write_csv, write_parquet
    from pacs_bridge.archive.whole_file import whole_file

    with coded_failures(as_json), PlanFile(run_folder) as known:
        if not is_complete(known):
            click.echo(_UNFINISHED, err=True)
        account, an_hour = account_of(known), options["cost_an_hour"]
        cost = None if an_hour is None else MachineCost(an_hour)
        if options["csv_path"]:
            with whole_file(options["csv_path"]) as path:
                write_csv(series_lines(known), path, cost)
        if options["parquet_path"]:
            try:
                with whole_file(options["parquet_path"]) as path:
                    write_parquet(series_lines(known), path, cost)
            except ParquetMissingError as error:
                end_wrong_call(f"--parquet: {error}")
        if options["html_path"]:
            text = PageText(options["title"], datetime.now().astimezone(), cost)
            with whole_file(options["html_path"]) as path:
                path.write_text(page(account, text), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(plain(account, cost), indent=2))
    else:
        print_account(account, cost)


def _optional(config_path: Path | None) -> BridgeConfig | None:
    return None if config_path is None else loaded(config_path)


def _remote(config: BridgeConfig | None, options: dict[str, Any]) -> RemoteInput | None:
    from pacs_bridge.archive.plan_file import FILES
    from pacs_bridge.archive.planning import RemoteInput
    from pacs_bridge.sources.remote_archive import SeriesQuery

    name = options["source"]
    if name is None:
        return None
    if name == FILES:
        end_wrong_call(f"--source {name}: give it another name: a plan calls its own files that")
    if config is None:
        end_wrong_call("--source: name the configuration with --config FILE")
    from_date, to_date = options["from_date"], options["to_date"]
    query = SeriesQuery(
        from_date=from_date.date() if from_date else None,
        to_date=to_date.date() if to_date else None,
        study_description=options["study_description"],
        series_description=options["series_description"],
        body_part=options["body_part"],
    )
    return RemoteInput(name, opened(config, name), query)


def _pace(between: str | None, rate: str | None) -> Pace:
    from pacs_bridge.archive.window import Pace, Rate, TimeWindow

    try:
        return Pace(
            None if between is None else TimeWindow.parse(between),
            None if rate is None else Rate.parse(rate),
        )
    except ValueError as error:
        end_wrong_call(str(error))
