"""The section of Orthanc's configuration, and versions that are known to have faults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pacs_bridge.plugin.known_faults import version_warnings
from pacs_bridge.plugin.settings import _KEYS, Settings, read_settings

DOCS = Path(__file__).resolve().parents[3] / "docs" / "orthanc.md"
MINIMAL = {"Modality": "bridge"}
FILE = Path("/etc/orthanc/orthanc.json")


def test_what_is_not_said_has_defaults_that_follow_orthanc() -> None:
    configuration = {"StorageDirectory": "/st", "StableAge": 20, "PacsBridge": MINIMAL}
    settings = read_settings(configuration).settings
    assert settings == Settings("bridge", Path("/st/pacs-bridge.notes"), 20.0)
    both = {**configuration, "IndexDirectory": "/ix"}
    found = read_settings(both).settings
    assert found is not None
    assert found.notes_file == Path("/ix/pacs-bridge.notes")


def test_a_relative_folder_is_beside_the_configuration_as_orthanc_takes_it() -> None:
    configuration = {"StorageDirectory": "st", "PacsBridge": MINIMAL}
    found = read_settings(configuration, FILE).settings
    assert found is not None
    assert found.notes_file == Path("/etc/orthanc/st/pacs-bridge.notes")
    (fault,) = read_settings(configuration).faults
    assert fault.startswith("PacsBridge.NotesFile: missing")


def test_control_may_be_behind_tls() -> None:
    tls = {"ControlUrl": "https://h:8043", "TokenFile": "/t", "ControlCaFile": "/ca.pem"}
    reading = read_settings({"StorageDirectory": "/st", "PacsBridge": {**MINIMAL, **tls}})
    assert reading.settings is not None
    assert reading.settings.ca_file == Path("/ca.pem")


def test_every_fault_is_said_at_once_and_unknown_keys_are_warned_of() -> None:
    reading = read_settings(
        {
            "PacsBridge": {
                "ControlUrl": "ftp://host/path",
                "Command": ["pacs-bridge", "serve"],
                "StoresAtOnce": 0,
                "FirstWaitSeconds": "5",
                "Automatic": 1,
                "NotesFile": "relative",
                "Colour": "blue",
            }
        },
        FILE,
    )
    assert reading.settings is None
    assert {fault.partition(":")[0] for fault in reading.faults} == {
        f"PacsBridge.{key}"
        for key in (
            *("Modality", "ControlUrl", "Command", "StoresAtOnce", "FirstWaitSeconds"),
            *("Automatic", "NotesFile", "TokenFile"),
        )
    }
    assert reading.warnings == ("PacsBridge.Colour: unknown key",)


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({**MINIMAL, "Command": ["/bin/x"]}, "PacsBridge.ControlUrl: missing"),
        ({**MINIMAL, "FirstWaitSeconds": 9, "MaxWaitSeconds": 8}, "PacsBridge.MaxWaitSeconds"),
        ({"Modality": "a/b"}, "PacsBridge.Modality: is a name"),
        ({**MINIMAL, "ControlUrl": "http://[", "TokenFile": "/t"}, "PacsBridge.ControlUrl"),
        (
            {**MINIMAL, "ControlUrl": "http://u:TopSecret@h:8043", "TokenFile": "/t"},
            "PacsBridge.ControlUrl: holds no user or password",
        ),
        ("bridge", "PacsBridge: not an object"),
    ],
)
def test_what_cannot_work_is_a_fault(section: object, fault: str) -> None:
    (said,) = read_settings({"PacsBridge": section}, FILE).faults
    assert said.startswith(fault)


def test_without_its_section_the_plugin_is_not_wanted() -> None:
    for configuration in ({}, {"PacsBridge": {**MINIMAL, "Enable": False}}):
        reading = read_settings(configuration)
        assert (reading.settings, reading.faults, len(reading.warnings)) == (None, (), 1)


def test_the_documentation_shows_every_key_and_its_example_has_no_fault() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert rows >= set(_KEYS)
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    reading = read_settings(json.loads(example), FILE)
    assert reading.faults == reading.warnings == ()


@pytest.mark.parametrize(
    ("orthanc", "plugin", "count"),
    [
        ("1.12.11", "4.3", 0),
        ("1.13.0", "7.0", 0),
        ("2.0", "5.0", 0),
        ("mainline", "mainline", 0),
        ("1.12.10", "5.0", 1),
        ("1.9.7", "4.0", 2),
        ("1.12.11", "3.0", 1),
        ("1.12.11", "", 0),
    ],
)
def test_versions_with_known_faults_are_warned_of(orthanc: str, plugin: str, count: int) -> None:
    assert len(list(version_warnings(orthanc, plugin))) == count
