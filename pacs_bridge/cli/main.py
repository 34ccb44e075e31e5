"""The command ``pacs-bridge``.

Results go to standard output, logs and progress to standard error. Exit status: 0 done,
1 failed, refused or skipped with a reason code, 2 wrong call or configuration. A command
imports what it needs inside itself: the service starts without torch.
"""

from __future__ import annotations

import click

from pacs_bridge.cli.archive import archive
from pacs_bridge.cli.audit import audit
from pacs_bridge.cli.demo import demo, demo_archive
from pacs_bridge.cli.doctor import doctor
from pacs_bridge.cli.jobs import jobs, retry
from pacs_bridge.cli.model import model
from pacs_bridge.cli.segment import segment
from pacs_bridge.cli.serve import control, dispatch, listen, send, serve, work


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pacs-bridge", prog_name="pacs-bridge")
def main() -> None:
    """CT series in over DICOM, coded whole-body Segmentations back into the PACS.

    For research; results are investigational. Not a medical device.
    """


for command in (
    archive,
    audit,
    control,
    demo,
    demo_archive,
    dispatch,
    doctor,
    jobs,
    listen,
    model,
    retry,
    segment,
    send,
    serve,
    work,
):
    main.add_command(command)
