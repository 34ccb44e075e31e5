"""``pacs-bridge model``: the model store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_bridge.cli.outcome import FAILED, coded_failures, end_wrong_call
from pacs_bridge.cli.progress import download_progress

if TYPE_CHECKING:
    from inference.manifest import ModelManifest
    from inference.model_store import ModelStore


def _models_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--models",
        "models_folder",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the model store; default $PACS_BRIDGE_MODELS or the user's data folder.",
    )(command)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@click.group()
def model() -> None:
    """List, import, fetch and verify models."""


@model.command("list")
@_models_option
@_json_option
def list_models(models_folder: Path | None, as_json: bool) -> None:
    """List the models of the store and those that the package carries."""
    from inference.errors import InferenceError

    lines = []
    for store in _stores(models_folder):
        for name in store.names():
            try:
                lines.append(_facts(store.manifest(name), store))
            except InferenceError as error:
                lines.append({"name": name, "folder": str(store.root), "fault": str(error)})
    if as_json:
        click.echo(json.dumps(lines, indent=2))
        return
    for line in lines:
        if "fault" in line:
            click.echo(f"{line['name']}: {line['fault']}")
        else:
            use = "demonstration" if line["demonstration"] else "research"
            click.echo(f"{line['name']}  {line['version']}  {line['spacing_mm']:g} mm  for {use}")
    if not lines:
        click.echo("no models; `pacs-bridge model fetch` gets the published ones", err=True)


@model.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name in the store; by default that of the published list.")
@click.option(
    "--spacing-mm",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Of the network's grid, for weights that are not published.",
)
@click.option(
    "--allow-unknown", is_flag=True, help="Accept weights that are not on the published list."
)
@_models_option
@_json_option
def import_model(
    path: Path,
    name: str | None,
    spacing_mm: float | None,
    allow_unknown: bool,
    models_folder: Path | None,
    as_json: bool,
) -> None:
    """Import model.pt or model_lowres.pt of the published bundle.

    Only tensors are read; nothing of the file is executed.
    """
    from inference.model_import import import_published

    if allow_unknown and spacing_mm is None:
        raise click.UsageError("--allow-unknown needs --spacing-mm: weights do not say their grid")
    store = _stores(models_folder)[0]
    with coded_failures(as_json):
        manifest = import_published(
            path, store, name=name, spacing_mm=spacing_mm, allow_unknown=allow_unknown
        )
    _tell(manifest, store, as_json)


@model.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--cache",
    "cache_folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where downloads are kept; default: beside the store.",
)
@click.option(
    "--mirror", metavar="URL", help="Folder of a mirror that has the files by their own names."
)
@_models_option
@_json_option
@click.option("--quiet", is_flag=True, help="No progress.")
def fetch(
    names: tuple[str, ...],
    cache_folder: Path | None,
    mirror: str | None,
    models_folder: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Download the published weights and import them.

    A broken download is continued, also by the next call; the checksum is the published one.
    Proxies come from the environment. Without NAME both resolutions are fetched.
    """
    from inference.model_import import import_published
    from pacs_bridge.model_fetch import (
        ModelFetcher,
        http_client,
        is_http_address,
        published_models,
    )

    known = {published.name: published for published in published_models()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; published are {', '.join(known)}")
    if mirror is not None and not is_http_address(mirror):
        raise click.BadParameter(f"--mirror {mirror}: no http or https address")
    store = _stores(models_folder)[0]
    folder = cache_folder or store.root / ".downloads"
    with coded_failures(as_json), http_client() as client:
        for name in names or tuple(known):
            wanted = known[name] if mirror is None else known[name].at(mirror)
            with download_progress(name, quiet) as progress:
                path = ModelFetcher(client).fetch(wanted, folder, progress)
            _tell(import_published(path, store), store, as_json)


@model.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_models_option
@_json_option
def verify(names: tuple[str, ...], models_folder: Path | None, as_json: bool) -> None:
    """Check weights against their manifests; all models without NAME."""
    from inference.errors import InferenceError
    from inference.model_store import locate
    from inference.reasons import Reason
    from pacs_bridge.models import known_models

    stores = _stores(models_folder)
    known = known_models(stores)
    unknown = ", ".join(name for name in names if name not in known)
    if unknown:
        end_wrong_call(f"{unknown}: {Reason.UNKNOWN_MODEL}; models here: {', '.join(known)}")
    faults = {}
    for name in names or known:
        try:
            locate(name, stores).verify(name)
            faults[name] = ""
        except InferenceError as error:
            faults[name] = str(error)
    if as_json:
        click.echo(json.dumps(faults, indent=2))
    else:
        for name, fault in faults.items():
            click.echo(f"{name}: {fault or 'good'}")
    if any(faults.values()):
        raise click.exceptions.Exit(FAILED)


def _stores(models_folder: Path | None) -> tuple[ModelStore, ...]:
    from pacs_bridge.models import default_models_folder, model_stores

    return model_stores(models_folder or default_models_folder())


def _facts(manifest: ModelManifest, store: ModelStore) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "spacing_mm": manifest.spacing_mm,
        "sha256": manifest.weights_sha256,
        "demonstration": manifest.demonstration,
        "intended_use": manifest.intended_use,
        "source": manifest.source,
        "licence": manifest.licence,
        "folder": str(store.root),
    }


def _tell(manifest: ModelManifest, store: ModelStore, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_facts(manifest, store)))
    else:
        click.echo(f"{manifest.name}: imported into {store.root}, {manifest.licence}")
