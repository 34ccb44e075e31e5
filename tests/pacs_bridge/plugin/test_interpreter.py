"""What the plugin asks of Orthanc's interpreter: nothing but the standard library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "pacs_bridge"

PROBE = """
import json, sys, types
before = set(sys.modules)
api = types.ModuleType("orthanc")
api.GetConfiguration = lambda: json.dumps({"StorageDirectory": "/nowhere"})
registered = []
for name in ("RegisterOnChangeCallback", "RegisterRestCallback", "ExtendOrthancExplorer"):
    setattr(api, name, lambda *arguments, name=name: registered.append(name))
sys.modules["orthanc"] = api
folder = sys.argv[1]
sys.path.insert(0, folder)          # as Orthanc does with the folder of its script
import orthanc_plugin
import queue
stray = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps({
    "stray": sorted(stray - set(sys.stdlib_module_names) - {"orthanc", "orthanc_plugin"}),
    "ours": sorted(name for name in sys.modules if name.startswith("pacs_bridge")),
    "queue": queue.__file__,
    "path": sys.path,
    "registered": registered,
    "sqlite": "_sqlite3" in sys.modules,
}))
"""


def test_the_plugin_needs_the_standard_library_alone() -> None:
    # -I -S: no environment, no site-packages, no current folder
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", PROBE, str(FOLDER)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["stray"] == ["pacs_bridge"]
    assert all(
        name == "pacs_bridge" or name.startswith("pacs_bridge.plugin") for name in found["ours"]
    )
    assert not found["sqlite"]
    assert sorted(found["registered"]) == [
        "ExtendOrthancExplorer",
        "RegisterOnChangeCallback",
        "RegisterRestCallback",
    ]


def test_the_standard_library_is_not_hidden_by_our_modules() -> None:
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(FOLDER)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)
    assert Path(found["queue"]).parent != FOLDER
    assert not {str(FOLDER), str(FOLDER.parent)} & set(found["path"])
