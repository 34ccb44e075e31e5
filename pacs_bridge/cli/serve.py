"""``pacs-bridge serve``, and the commands of its single processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_bridge.cli.configuration import config_option, loaded
from pacs_bridge.cli.ledger import has_ledger
from pacs_bridge.cli.outcome import coded_failures, end_wrong_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacs_bridge.config.bridge import BridgeConfig
    from pacs_bridge.job_place import JobPlace


def _ready_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--ready-fd", type=int, hidden=True, help="Told when it is ready.")(command)


@click.command()
@config_option
@click.option(
    "--until-stdin-closes", is_flag=True, help="End when the process that started it is gone."
)
@click.option(
    "--moved-here",
    is_flag=True,
    help="The data folder was another machine's, on which nothing uses it any more.",
)
def serve(config_path: Path, until_stdin_closes: bool, moved_here: bool) -> None:
    """Run the whole service of one machine: listener, workers, sender.

    Prints one line when associations are accepted and models are loaded. SIGTERM lets
    associations and deliveries finish and gives jobs back; then it ends with status 0.
    """
    from pacs_bridge.child import leave_on_closed_stdin, leave_on_signals, open_log
    from pacs_bridge.clock import SystemClock
    from pacs_bridge.ledger.home import LedgerHome
    from pacs_bridge.ledger.ledger import Ledger
    from pacs_bridge.machine import Machine
    from pacs_bridge.startup import (
        child_specs,
        demonstration_routes,
        keep_handed_over,
        startup_faults,
    )
    from pacs_bridge.supervisor import Supervisor, WrongConfigurationError

    config = loaded(config_path)
    faults = startup_faults(config)
    if faults:
        end_wrong_call("\n".join([f"{config_path}:", *(f"  {fault}" for fault in faults)]))
    leave = leave_on_signals()
    if until_stdin_closes:
        leave_on_closed_stdin(leave)
    machine = Machine.here(SystemClock().boot_id())
    home = LedgerHome(config.ledger_path, machine, moved_here=moved_here)
    with coded_failures(False):
        log = open_log(config)
        ledger = Ledger.open(config.ledger_path, home=home)
        unfit = demonstration_routes(config)
        keep_handed_over(ledger, config)
    for route, model in unfit:
        log.warning("demonstration-model", route=route, model=model)
    supervisor = Supervisor(
        child_specs(config, config_path.resolve()),
        log,
        drain_s=config.listener.drain_timeout_s + 10.0,
        on_death=ledger.presume_dead,
        on_kill=ledger.give_back,
    )

    def announce(said: dict[str, str]) -> None:
        workers = sum(name.startswith("worker") for name in said)
        queue = "" if config.queue is None else f", jobs to queue {config.queue.name}"
        click.echo(
            f"ready: {config.listener.ae_title} at {config.listener.bind}:{said['listener']},"
            f" {workers} worker{'' if workers == 1 else 's'}{queue},"
            f" to {', '.join(each.name for each in config.destinations)}"
            + (f"; control at port {said['control']}" if "control" in said else "")
            + "".join(f"; route {route}: {model} is for demonstration" for route, model in unfit)
        )

    try:
        supervisor.run(leave, announce)
    except WrongConfigurationError as error:
        end_wrong_call(f"{config_path}: the process {error} cannot run as configured")
    finally:
        ledger.close()


@click.command(hidden=True)
@config_option
@_ready_option
def listen(config_path: Path, ready_fd: int | None) -> None:
    """Run the listener alone."""
    from pacs_bridge.receive.service import run_listener

    config = loaded(config_path)
    with _configuration_faults():
        run_listener(config, lambda port: _tell_ready(ready_fd, str(port)))


@click.command()
@config_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--queue",
    "url",
    metavar="URL",
    help="Jobs of a bridge elsewhere: postgresql://... (password: PGPASSFILE, or a service).",
)
@click.option("--queue-name", help="In the database; by default as configured, or 'default'.")
@click.option("--own-ledger", is_flag=True, hidden=True, help="Those of `serve` beside a queue.")
@_ready_option
def work(
    config_path: Path,
    device: str,
    url: str | None,
    queue_name: str | None,
    own_ledger: bool,
    ready_fd: int | None,
) -> None:
    """Run one more worker: beside those of `serve`, or for a bridge elsewhere.

    Its jobs are those of --queue, or of [queue] in the configuration; without either those of
    the ledger, on the machine of `serve` alone.
    """
    from pacs_bridge.worker_service import run_worker

    if url == "" or (own_ledger and (url, queue_name) != (None, None)):
        end_wrong_call("--queue: no URL" if url == "" else "--own-ledger goes with no queue")
    config = loaded(config_path)
    with _configuration_faults():
        jobs = _jobs_here(config) if own_ledger else _job_place(config, url, queue_name)
        run_worker(config, device, lambda: _tell_ready(ready_fd), jobs)


def _job_place(
    config: BridgeConfig, url: str | None, queue_name: str | None
) -> Callable[[BridgeConfig], JobPlace]:
    """Where a worker's jobs come from; without a ``url`` as configured."""
    if url is None and config.queue is None:
        if queue_name is not None:
            end_wrong_call("--queue-name: there is no --queue, and no [queue] is configured")
        return _jobs_here(config)
    from pacs_bridge.postgres.place import handed_over_jobs
    from pacs_bridge.postgres.server import has_password

    if url is not None and has_password(url):
        click.echo("the password is seen by every user of this machine", err=True)
    of_file = ("", "default") if config.queue is None else (config.queue.url, config.queue.name)
    return partial(handed_over_jobs, url=url or of_file[0], name=queue_name or of_file[1])


def _jobs_here(config: BridgeConfig) -> Callable[[BridgeConfig], JobPlace]:
    """The jobs of the ledger of this machine; a worker makes none."""
    from pacs_bridge.job_place import own_ledger

    if not has_ledger(config):
        end_wrong_call(
            f"no ledger at {config.ledger_path}: the service has not run here yet;"
            " a worker for a bridge elsewhere takes --queue URL"
        )
    return own_ledger


@click.command(hidden=True)
@config_option
@_ready_option
def dispatch(config_path: Path, ready_fd: int | None) -> None:
    """Hand jobs over to workers elsewhere."""
    config = loaded(config_path)
    if config.queue is None:
        end_wrong_call(f"{config_path}: queue: missing")
    from pacs_bridge.postgres.service import run_dispatcher

    with _configuration_faults():
        run_dispatcher(config, config.queue, lambda: _tell_ready(ready_fd))


@click.command(hidden=True)
@config_option
@_ready_option
def send(config_path: Path, ready_fd: int | None) -> None:
    """Run the sender alone."""
    from pacs_bridge.deliver.service import run_sender

    config = loaded(config_path)
    with _configuration_faults():
        run_sender(config, lambda: _tell_ready(ready_fd))


@click.command(hidden=True)
@config_option
@_ready_option
def control(config_path: Path, ready_fd: int | None) -> None:
    """Run state and steering over HTTP alone."""
    from pacs_bridge.control.service import run_control

    config = loaded(config_path)
    if config.control is None:
        end_wrong_call(f"{config_path}: there is no table [control]")
    with _configuration_faults():
        run_control(config, lambda port: _tell_ready(ready_fd, str(port)))


@contextmanager
def _configuration_faults() -> Iterator[None]:
    """What no restart will help, as status 2."""
    from inference.errors import InferenceError
    from pacs_bridge.errors import PermanentError
    from pacs_bridge.models import UnknownDeviceError

    try:
        yield
    except (PermanentError, InferenceError, UnknownDeviceError) as error:
        end_wrong_call(str(error))


def _tell_ready(descriptor: int | None, word: str = "ready") -> None:
    """Write a line to the descriptor that the supervisor reads, if there is one."""
    if descriptor is not None:
        os.write(descriptor, f"{word}\n".encode())
        os.close(descriptor)
