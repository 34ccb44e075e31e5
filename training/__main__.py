"""``python -m training``: offline work on weights.

Every module of ``training.cli`` holds the command of its name.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

import click

import training.cli


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Make and judge weights, offline."""


for _found in pkgutil.iter_modules(training.cli.__path__):
    main.add_command(getattr(import_module(f"training.cli.{_found.name}"), _found.name))


if __name__ == "__main__":
    main(prog_name="python -m training")
