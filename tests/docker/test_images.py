"""The images, as far as they can be checked without building them."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*Dockerfile"))
HADOLINT = Path(sys.executable).with_name("hadolint")
BUILD = "build"
PREFIX = "/opt/pacs-bridge"


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile."""

    stage: int
    word: str
    value: str

    @property
    def copied(self) -> tuple[list[str], str]:
        """Sources and target of a COPY."""
        *sources, target = shlex.split(self.value)
        return sources, target


def _instructions(path: Path) -> Iterator[Instruction]:
    stage = -1
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        word, _, value = line.partition(" ")
        stage += word == "FROM"
        yield Instruction(stage, word, value)


def _is_let_in(name: str) -> bool:
    """Whether .dockerignore lets a path of the context in; its last rule that fits decides."""
    is_in = True
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!").removeprefix("**/")
            if any(fnmatch.fnmatch(part, pattern) for part in (name, *name.split("/"))):
                is_in = rule.startswith("!")
    return is_in


def _copy(dockerfile: Path, stage: int, into: Path) -> None:
    """Do the COPY instructions of a stage, below another root."""
    for one in _instructions(dockerfile):
        if one.word != "COPY" or one.stage != stage or one.value.startswith("--from"):
            continue
        sources, target = one.copied
        for source in sources:
            assert _is_let_in(source), f"{source} is not in the context"
            path = into / target.lstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, path, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                where = path / Path(source).name if target.endswith("/") else path
                where.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, where)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_linter_finds_nothing_in_a_dockerfile(path: Path) -> None:
    ended = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_pinned_runs_as_nobody_special_and_says_whether_it_is_well(path: Path) -> None:
    lines = list(_instructions(path))
    final = [one for one in lines if one.stage == lines[-1].stage]
    bases = [one.value.split()[0] for one in lines if one.word == "FROM"]
    assert all(re.search(r":\d[\w.-]*$", base) for base in bases)
    user = [one.value for one in final if one.word == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    (check,) = [one.value for one in final if one.word == "HEALTHCHECK"]
    command = json.loads(check.partition(" CMD ")[2])
    compile(command[command.index("-c") + 1], "healthcheck", "exec")
    assert not re.search(r"(?i)password|secret|token", path.read_text(encoding="utf-8"))


def test_orthanc_is_of_a_version_without_known_faults() -> None:
    from pacs_bridge.plugin.known_faults import version_warnings

    (base,) = [
        one.value for one in _instructions(DOCKER / "orthanc.Dockerfile") if one.word == "FROM"
    ]
    assert list(version_warnings(base.partition(":")[2], "")) == []


def test_what_the_image_copies_makes_a_package_that_works(tmp_path: Path) -> None:
    _copy(DOCKER / "Dockerfile", 0, tmp_path)
    *_, install = [one.value for one in _instructions(DOCKER / "Dockerfile") if one.word == "RUN"][
        :3
    ]
    words = shlex.split(install)
    assert words[:2] == [f"{PREFIX}/bin/pip", "install"]
    target = tmp_path / "site"
    # The build's own tools come from here: nothing is downloaded.
    here = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation"]
    options = ["--disable-pip-version-check", "--target", str(target)]
    source = str(tmp_path / words[-1].lstrip("/"))
    subprocess.run([*here, *options, *words[2:-1], source], check=True)

    code = (
        "import inference, dicom_seg, pacs_bridge, json;"
        "from pacs_bridge.models import known_models, model_stores;"
        "print(json.dumps([m.__file__ for m in (inference, dicom_seg, pacs_bridge)]"
        " + [list(known_models(model_stores(None)))]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
    run = {"cwd": tmp_path, "env": environment, "check": True}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **run)
    *files, models = json.loads(said.stdout)
    assert all(Path(file).is_relative_to(target) for file in files)
    assert "synthetic-3mm" in models
    assert (target / "pacs_bridge" / "plugin" / "data" / "explorer.js").exists()
    subprocess.run([sys.executable, "-m", "pacs_bridge", "serve", "--help"], **run)


def test_the_plugin_works_from_what_orthancs_image_copies(tmp_path: Path) -> None:
    _copy(DOCKER / "orthanc.Dockerfile", 0, tmp_path)
    script = Path(json.loads((DOCKER / "orthanc.json").read_text())["PythonScript"])
    folder = tmp_path / str(script.parent).lstrip("/")
    assert (folder / script.name).exists()
    configuration = (DOCKER / "orthanc.json").read_text(encoding="utf-8")
    code = (
        "import sys, types\n"
        "api = types.ModuleType('orthanc')\n"
        f"api.GetConfiguration = lambda: {configuration!r}\n"
        "for name in ('RegisterOnChangeCallback', 'RegisterRestCallback'):\n"
        "    setattr(api, name, lambda *_: None)\n"
        "api.ExtendOrthancExplorer = lambda script: print(len(script))\n"
        "sys.modules['orthanc'] = api\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "import orthanc_plugin, pacs_bridge\n"
        f"assert pacs_bridge.__path__ == [{str(folder)!r}]\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(said) > 1000


def test_data_and_keys_do_not_come_into_an_image() -> None:
    for name in ("data", "models", "docker", ".git", ".venv", "tests", "configs"):
        assert not _is_let_in(name)


@pytest.mark.slow
def test_the_commands_of_the_image_work_in_a_bare_environment(tmp_path: Path) -> None:
    """All of it, with every library downloaded anew."""
    dockerfile = DOCKER / "Dockerfile"
    _copy(dockerfile, 0, tmp_path)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    clean["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:{clean['PATH']}"
    for one in _instructions(dockerfile):
        if one.word == "RUN" and one.stage == 0:
            command = re.sub(r"(?<![\w.])/(opt|src)/", rf"{tmp_path}/\1/", f"{one.value}/")[:-1]
            subprocess.run(command, shell=True, check=True, env={**clean, "TORCH_INDEX": ""})
    program = tmp_path / "opt" / "pacs-bridge" / "bin" / "pacs-bridge"
    config = tmp_path / "bridge.toml"
    text = (DOCKER / "bridge.toml").read_text(encoding="utf-8")
    config.write_text(text.replace('"/var/lib/pacs-bridge"', f'"{tmp_path / "data"}"'))
    assert tomllib.loads(config.read_text())["data_folder"] == str(tmp_path / "data")
    listed = subprocess.run(
        [program, "model", "list", "--json"], capture_output=True, text=True, env=clean, check=True
    )
    assert "synthetic-3mm" in listed.stdout
    checked = subprocess.run(
        [program, "doctor", "--config", config], capture_output=True, text=True, env=clean
    )
    assert checked.returncode in (0, 1), checked.stderr
    assert "ledger" in checked.stdout
