"""How a command ends: what it prints, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from click.core import ParameterSource

from inference.reasons import Reason, describe

DONE = 0
FAILED = 1
WRONG_CALL = 2
#: Outcomes of the reason table, in the words of a report.
_VERBS = {"refused": "refuse", "skipped": "skip", "quarantined": "quarantine", "failed": "fail"}


@contextmanager
def coded_failures(as_json: bool, *, name_files: bool = True) -> Iterator[None]:
    """Turn coded errors of the body into a message and exit status 1.

    Without ``name_files`` an error of the file system does not tell which file it met: the
    name may be a patient's.
    """
    from dicom_seg.errors import SegmentationError
    from inference.errors import InferenceError
    from pacs_bridge.errors import BridgeError, disk_reason

    try:
        yield
    except (BridgeError, InferenceError, SegmentationError) as error:
        end_failed(error.reason, error.detail, as_json)
    except OSError as error:
        where = f"{error.filename}: " if name_files and error.filename else ""
        end_failed(disk_reason(error), f"{where}{error.strerror or error}", as_json)


def end_failed(reason: Reason, detail: str, as_json: bool) -> NoReturn:
    """Say why, and exit with status 1."""
    outcome = _VERBS.get(describe(reason).outcome, "fail")
    if as_json:
        ending = {"outcome": outcome, "reason": reason, "detail": detail}
        click.echo(json.dumps({"ending": ending}))
    else:
        click.echo(f"{outcome}: {reason}: {detail}")
    advise(reason)
    raise click.exceptions.Exit(FAILED)


def advise(reason: Reason) -> None:
    """What a reason means and what to do about it, one line on standard error."""
    text = describe(reason)
    click.echo(f"{reason}: {text.meaning}. Advice: {text.advice}.", err=True)


def end_wrong_call(message: str) -> NoReturn:
    """Say what is wrong with the call or the configuration, and exit with status 2."""
    click.echo(message, err=True)
    raise click.exceptions.Exit(WRONG_CALL)


def refuse_given(names: Collection[str], why: str) -> None:
    """End the command as a wrong call if one of these parameters is on its command line.

    Parameters
    ----------
    names
        Of the parameters, as the function of the command has them. What the environment says is
        no part of the call.
    why
        When they mean something.
    """
    given = given_names()
    params = click.get_current_context().command.params
    wrong = [each.opts[0] for each in params if each.name in names and each.name in given]
    if wrong:
        end_wrong_call(f"{', '.join(wrong)}: {why}")


def given_names() -> frozenset[str]:
    """Which parameters are on the command line of the command that runs."""
    context = click.get_current_context()
    return frozenset(
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )
