"""The Orthanc plugin: name this file as ``PythonScript`` in Orthanc's configuration.

Orthanc's interpreter is not ours and has none of our dependencies. What is used here is the module
``orthanc``, the standard library and ``pacs_bridge.plugin``, which uses nothing else either; pixels
are never touched. See docs/orthanc.md.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import orthanc

_FOLDER = Path(__file__).resolve().parent


def _make_package_known() -> None:
    """Let ``pacs_bridge`` be found without its neighbours.

    Orthanc puts the folder of its script in front of ``sys.path``: our ``queue`` would stand in
    the place of the standard library's. And with the folder above it there, Orthanc's other
    scripts would find libraries that were built for another interpreter.
    """
    sys.path[:] = [path for path in sys.path if not path or Path(path).resolve() != _FOLDER]
    if "pacs_bridge" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "pacs_bridge", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["pacs_bridge"] = package
    spec.loader.exec_module(package)


def _configuration_file(api: Any) -> Path | None:
    """The file that Orthanc was started with, if it is one."""
    text = api.GetConfigurationPath() if hasattr(api, "GetConfigurationPath") else ""
    return Path(text) if text and Path(text).is_file() else None


def register(api: Any) -> None:
    """Hang the plugin into Orthanc.

    Parameters
    ----------
    api
        The module ``orthanc``.
    """
    from pacs_bridge.plugin.routes import ROUTE, RestOutput, send
    from pacs_bridge.plugin.server import OrthancServer
    from pacs_bridge.plugin.service import PluginService
    from pacs_bridge.plugin.settings import read_settings

    reading = read_settings(json.loads(api.GetConfiguration()), _configuration_file(api))
    service = PluginService(OrthancServer(api), reading)

    def on_change(change: int, _level: int, resource: str) -> None:
        if change == api.ChangeType.STABLE_SERIES:
            service.series_is_stable()
        elif change == api.ChangeType.JOB_SUCCESS:
            service.job_ended(resource, True)
        elif change == api.ChangeType.JOB_FAILURE:
            service.job_ended(resource, False)
        elif change == api.ChangeType.ORTHANC_STARTED:
            service.start()
        elif change == api.ChangeType.ORTHANC_STOPPED:
            service.stop()

    def on_call(output: RestOutput, _uri: str, **request: Any) -> None:
        headers = {name.lower(): text for name, text in request.get("headers", {}).items()}
        send(output, service.answer(request["method"], request["groups"][0], headers))

    api.RegisterOnChangeCallback(on_change)
    api.RegisterRestCallback(ROUTE, on_call)
    script = _FOLDER / "plugin" / "data" / "explorer.js"
    api.ExtendOrthancExplorer(script.read_text(encoding="utf-8"))


_make_package_known()
register(orthanc)
