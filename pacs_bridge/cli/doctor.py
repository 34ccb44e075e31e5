"""``pacs-bridge doctor``: whether this installation is fit to run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from pacs_bridge.cli.configuration import config_option, loaded
from pacs_bridge.cli.outcome import FAILED, end_wrong_call


@click.command()
@config_option
@click.option("--queue", "url", metavar="URL", help="Check a machine for `work --queue URL`.")
@click.option("--queue-name", help="In the database; by default as configured, or 'default'.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(config_path: Path, url: str | None, queue_name: str | None, as_json: bool) -> None:
    """Check an installation; it changes nothing, and the service may run meanwhile.

    Looked at are the configuration, all that `serve` looks at before it starts (ports, models,
    files and folders, secrets), the weights of the models, devices, disk, ledger, clock and the
    queue. A destination is asked with C-ECHO and for the kinds of Segmentation that it accepts,
    or by STOW-RS; a source whether it answers, or whether its plan is there. Run it as the user
    of the service: what that one may read and write is looked at.

    With --queue the machine is one of a bridge elsewhere, which listens nowhere and sends
    nothing: looked at are configuration, models, devices, sources, clock, the queue and whether
    the data folder is a bridge's, and lets this user work in it.

    Exits with 1 if something would keep the service from working.
    """
    from pacs_bridge.checkup import Health, check_up, check_worker
    from pacs_bridge.config.queue import QueueConfig

    if url == "" or (url is None and queue_name is not None):
        end_wrong_call("--queue: no URL")
    config = loaded(config_path)
    if url is None:
        findings = check_up(config)
    else:
        configured = "default" if config.queue is None else config.queue.name
        asked = QueueConfig.model_construct(url=url, name=queue_name or configured)
        findings = check_worker(config, asked)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in findings], indent=2))
    else:
        width = max(len(each.subject) for each in findings)
        for each in findings:
            click.echo(f"{each.health:5}  {each.subject:{width}}  {each.detail}")
    if any(each.health is Health.BAD for each in findings):
        raise click.exceptions.Exit(FAILED)
