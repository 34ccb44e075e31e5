"""``pacs-bridge audit``: whether ledger and disk agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from pacs_bridge.cli.configuration import config_option, loaded
from pacs_bridge.cli.ledger import opened_ledger
from pacs_bridge.cli.outcome import FAILED, coded_failures


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit(config_path: Path, as_json: bool) -> None:
    """Check what must hold between the ledger and the disk; the service may run meanwhile.

    \b
    I1  every instance that was acknowledged is on disk, with its digest
    I2  every series and job goes on by itself, or has ended with a reason
    I3  what is sent, or still to be sent, is a result of its job
    I4  no file lies in spool or quarantine that the ledger does not know
    I5  the ledger's file is sound

    Every file is read: a full spool takes its time. Exits with 1 if anything was found.
    """  # noqa: D301 - click takes the mark for what must not be wrapped
    from pacs_bridge.ledger.audit import audit as checked

    config = loaded(config_path)
    with coded_failures(as_json), opened_ledger(config, config_path) as ledger:
        faults = []
        for fault in checked(ledger.database, config.spool_folder, config.quarantine_folder):
            faults.append(fault)
            if not as_json:
                click.echo(f"{fault.invariant}  {fault.subject}  {fault.problem}")
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(fault) for fault in faults], indent=2))
    elif not faults:
        click.echo("all invariants hold")
    if faults:
        raise click.exceptions.Exit(FAILED)
