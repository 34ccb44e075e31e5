"""The examples of workers elsewhere: what they call is there, and takes what they give it."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from pacs_bridge.cli.main import main
from pacs_bridge.config.load import load_config
from pacs_bridge.postgres.server import connection_string, has_password

DOCKER = Path(__file__).resolve().parents[3] / "docker"
EXAMPLES = DOCKER / "examples"
SYSTEMD = EXAMPLES / "pacs-bridge-worker@.service"
SLURM = EXAMPLES / "slurm-workers.sh"
KUBERNETES = EXAMPLES / "kubernetes-workers.yaml"


def systemd_command() -> list[str]:
    unit = configparser.RawConfigParser(strict=False, delimiters=["="])
    unit.optionxform = str  # type: ignore[assignment]
    unit.read_string(SYSTEMD.read_text())
    return shlex.split(unit["Service"]["ExecStart"])[1:]


def slurm_command() -> list[str]:
    text = SLURM.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ *srun .*?(\S*pacs-bridge work .*) \|\|", text, re.MULTILINE)
    return shlex.split(line)[1:]


def manifests() -> list[dict]:
    return list(yaml.safe_load_all(KUBERNETES.read_text()))


def kubernetes_command() -> list[str]:
    (container,) = manifests()[1]["spec"]["template"]["spec"]["containers"]
    return container["args"]


@pytest.mark.parametrize("command", [systemd_command, slurm_command, kubernetes_command])
def test_the_command_of_an_example_is_one_of_ours(command):
    name, *arguments = command()
    with click.Context(main) as context:
        work = main.get_command(context, name)
        assert work is not None
        parsed = work.make_context(name, arguments, parent=context, resilient_parsing=True).params

    assert parsed["device"] in ("cuda", "%i")
    assert connection_string(parsed["url"])
    assert not has_password(parsed["url"])


@pytest.mark.parametrize("example", [SYSTEMD, SLURM, KUBERNETES])
def test_the_database_is_known_by_its_certificate_in_every_example(example):
    assert "verify-full" in example.read_text()


def test_the_shell_reads_the_slurm_script():
    subprocess.run(["bash", "-n", SLURM], check=True)


def test_a_task_of_the_array_starts_its_worker_again_until_it_was_told_to_leave(tmp_path):
    srun = tmp_path / "srun"
    srun.write_text(
        "#!/bin/bash\n"
        'echo x >> "$COUNT"\n'
        'case $(wc -l < "$COUNT") in 1) exit 70 ;; 2) exit 2 ;; esac\n'
    )
    srun.chmod(0o700)
    own = {"COUNT": str(tmp_path / "count"), "RESTART_S": "0", "HOME": str(tmp_path)}
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", SLURM], env={**own, "PATH": path}, check=True)

    assert (tmp_path / "count").read_text().split() == ["x"] * 3


def test_systemd_starts_a_worker_again_whatever_ended_it():
    text = SYSTEMD.read_text()
    assert "Restart=always" in text
    assert "StartLimitIntervalSec=0" in text
    assert "RestartPreventExitStatus" not in text


def test_the_configuration_in_the_manifest_is_one_of_ours(tmp_path):
    path = tmp_path / "bridge.toml"
    path.write_text(manifests()[0]["data"]["bridge.toml"])

    assert load_config(path).workers.devices == ("cuda",)


def test_names_within_the_manifest_agree():
    config, deployment = manifests()
    pod = deployment["spec"]["template"]["spec"]
    mounted = {each["name"] for each in pod["containers"][0]["volumeMounts"]}

    assert deployment["spec"]["selector"]["matchLabels"].items() <= (
        deployment["spec"]["template"]["metadata"]["labels"].items()
    )
    assert mounted == {each["name"] for each in pod["volumes"]}
    assert config["metadata"]["name"] in {
        each.get("configMap", {}).get("name") for each in pod["volumes"]
    }


def pod() -> dict:
    return manifests()[1]["spec"]["template"]["spec"]


def test_models_of_the_examples_are_ones_that_a_site_can_have(tmp_path):
    from inference.model_import import PUBLISHED_WEIGHTS
    from pacs_bridge.models import known_models, model_stores

    path = tmp_path / "bridge.toml"
    path.write_text(manifests()[0]["data"]["bridge.toml"])
    known = {each.model_name for each in PUBLISHED_WEIGHTS}
    assert {route.model for route in load_config(path).routes} <= known
    of_compose = load_config(DOCKER / "bridge.toml").routes
    assert {route.model for route in of_compose} <= {*known, *known_models(model_stores(None))}


def test_the_image_of_the_manifest_is_the_one_that_is_built_for_its_device():
    """The plain tag is the build for the CPU."""
    text = (DOCKER / "Dockerfile").read_text()
    built = dict(re.findall(r"^# *docker build .* -t (\S+) (?:(--build-arg TORCH_INDEX=) )?\.$",
                            text, re.MULTILINE))  # fmt: skip
    assert built == {"pacs-bridge": "", "pacs-bridge:cuda": "--build-arg TORCH_INDEX="}
    (container,) = pod()["containers"]
    assert "--device=cuda" in container["args"]
    assert built[container["image"]]
    # its program is found by the PATH of the image
    assert container["command"] == ["pacs-bridge"]


def test_workers_are_the_user_that_the_bridge_is():
    text = (DOCKER / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (.*)$", text, re.MULTILINE)
    security = pod()["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert security["fsGroup"] == security["runAsGroup"]
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert {services[name]["user"] for name in ("bridge", "worker")} == {user}


@pytest.mark.parametrize("example", [SYSTEMD, SLURM, KUBERNETES])
def test_every_example_says_that_the_user_matters(example):
    assert re.search(r"user (id )?and group", example.read_text().replace("\n# ", " "))


@pytest.mark.parametrize(
    "path", sorted(each for each in DOCKER.rglob("*") if each.is_file()), ids=lambda each: each.name
)
def test_no_example_takes_a_ledger_over_at_every_start(path):
    """What says so once is right when nothing else uses the ledger: at each start nobody looks."""
    lines = path.read_text().splitlines()
    said = " ".join(line.lstrip("# ") for line in lines if line.lstrip().startswith("#"))
    done = [line for line in lines if not line.lstrip().startswith("#")]

    assert not [line for line in done if "moved-here" in line]
    flag = re.escape("--moved-here once by hand, never as an argument that stays")
    assert said.count("--moved-here") == len(re.findall(flag, said))
