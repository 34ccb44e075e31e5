"""``pacs-bridge audit``: whether ledger and disk agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_bridge.cli.configuration import config_option, loaded
from pacs_bridge.cli.ledger import opened_ledger
from pacs_bridge.cli.outcome import FAILED, coded_failures

if TYPE_CHECKING:
    from pacs_bridge.ledger.audit import AuditFault
    from pacs_bridge.ledger.unnamed import Unnamed


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit(config_path: Path, as_json: bool) -> None:
    """Check what must hold between the ledger and the disk; the service may run meanwhile.

    \b
    I1  every instance that was acknowledged is on disk, with its digest
    I2  every series and job goes on by itself, or has ended with a reason
    I3  what is sent, or still to be sent, is a result of its job
    I4  no file lies in the data folder for long that the ledger does not know
    I5  the ledger's file is sound

    Every file is read: a full spool takes its time. Exits with 1 if anything was found. What
    workers left that died, and is deleted when their jobs are over, is counted and no fault.
    """  # noqa: D301 - click takes the mark for what must not be wrapped
    from pacs_bridge.ledger.audit import audit as checked

    config = loaded(config_path)
    with coded_failures(as_json), opened_ledger(config, config_path) as ledger:
        faults: list[AuditFault] = []
        leftovers: list[Unnamed] = []
        for fault in checked(
            ledger.database, config.spool_folder, config.quarantine_folder, leftovers.append
        ):
            faults.append(fault)
            if not as_json:
                click.echo(f"{fault.invariant}  {fault.subject}  {fault.problem}")
    files, size_bytes = sum(each.files for each in leftovers), sum(e.size_bytes for e in leftovers)
    if as_json:
        said = {
            "faults": [dataclasses.asdict(fault) for fault in faults],
            "leftovers": {"files": files, "size_bytes": size_bytes},
        }
        click.echo(json.dumps(said, indent=2))
    elif not faults:
        click.echo("all invariants hold")
    if leftovers and not as_json:
        click.echo(f"leftovers: {files} files, {size_bytes} bytes, which are not due to go yet")
    if faults:
        raise click.exceptions.Exit(FAILED)
