"""compose.yaml and the files beside it: closed, complete, and of one mind."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from pacs_bridge.config.destinations import ResultKind
from pacs_bridge.config.load import load_config
from pacs_bridge.plugin.settings import read_settings

DOCKER = Path(__file__).resolve().parents[2] / "docker"
APP_CONFIG = DOCKER / "ohif" / "app-config.js"
CHECK = Path(sys.executable).with_name("check-jsonschema")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def test_the_compose_specification_is_kept_to() -> None:
    files = sorted(DOCKER.glob("compose*.yaml"))
    assert len(files) == 2
    command = [CHECK, "--builtin-schema", "vendor.compose-spec", *files]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_no_service_has_more_rights_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service), name
        assert not any("docker.sock" in str(one) for one in service.get("volumes", ())), name


def test_ports_are_published_on_loopback_only(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"orthanc", "ohif"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_the_bridge_and_its_database_have_no_way_out(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    assert compose["networks"]["inside"]["internal"] is True
    for name in ("bridge", "worker", "postgres"):
        assert services[name]["networks"] == ["inside"]


def test_every_service_says_whether_it_is_well(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        built = service.get("build", {}).get("dockerfile")
        image = (DOCKER.parent / built).read_text(encoding="utf-8") if built else ""
        assert "healthcheck" in service or "HEALTHCHECK" in image, name
        assert service["restart"] == "unless-stopped"


def test_every_image_that_others_made_is_pinned(services: dict[str, dict[str, Any]]) -> None:
    built = {service["image"] for service in services.values() if "build" in service}
    for service in services.values():
        assert service["image"] in built or re.search(r":v?\d", service["image"])


def test_whatever_is_bound_is_there(compose: dict[str, Any], services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).is_file(), source
                assert volume.endswith(":ro")
            else:
                assert source in compose["volumes"]


def test_no_secret_stands_in_a_file_of_ours(compose: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = DOCKER / "make-secrets.sh"
    subprocess.run([script, folder], check=True, capture_output=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    subprocess.run([script, folder], check=True, capture_output=True)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}

    wanted = {Path(one["file"]).name for one in compose["secrets"].values()}
    assert set(before) == wanted
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "pgpass").stat().st_mode) == 0o600
    password = before["postgres-password"].decode().strip()
    assert len(password) >= 40
    assert before["pgpass"].decode() == f"postgres:5432:pacs_bridge:bridge:{password}\n"
    assert json.loads(before["orthanc-users.json"])["RegisteredUsers"]["orthanc"]
    users = {name for service in compose["services"].values() for name in _secrets(service)}
    assert users == set(compose["secrets"])


def test_a_folder_for_secrets_that_stood_open_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    folder.chmod(0o755)
    subprocess.run([DOCKER / "make-secrets.sh", folder], check=True, capture_output=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _secrets(service: dict[str, Any]) -> list[str]:
    return [one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())]


def test_orthanc_and_the_bridge_know_each_other(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    config = load_config(DOCKER / "bridge.toml")
    orthanc = json.loads((DOCKER / "orthanc.json").read_text(encoding="utf-8"))
    reading = read_settings(orthanc)
    assert reading.faults == reading.warnings == ()
    settings = reading.settings
    assert settings is not None
    title, host, port = orthanc["DicomModalities"][settings.modality]
    assert (title, port) == (config.listener.ae_title, config.listener.port)
    assert host in services
    control = urlsplit(settings.control_url)
    assert config.control is not None
    assert (control.hostname, control.port) == (host, config.control.port)
    assert settings.token_file == config.control_token_path == Path("/run/secrets/control-token")
    for name in ("orthanc", "bridge"):
        assert "control-token" in _secrets(services[name])
    (destination,) = config.destinations
    assert (destination.host, destination.ae_title) == ("orthanc", orthanc["DicomAet"])
    assert destination.port == orthanc["DicomPort"]
    subnet = compose["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    (peer,) = config.listener.peers
    assert (peer.ae_title, peer.addresses) == (orthanc["DicomAet"], (subnet,))


def test_workers_take_jobs_from_the_queue_of_the_bridge(services: dict[str, Any]) -> None:
    config = load_config(DOCKER / "bridge.toml")
    assert config.queue is not None
    assert f"--queue={config.queue.url}" in services["worker"]["command"]
    url = urlsplit(config.queue.url)
    environment = services["postgres"]["environment"]
    assert (url.hostname, url.username) == ("postgres", environment["POSTGRES_USER"])
    assert url.path == f"/{environment['POSTGRES_DB']}"


def test_no_log_grows_for_ever(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_who_may_send_to_orthanc_is_listed() -> None:
    orthanc = json.loads((DOCKER / "orthanc.json").read_text(encoding="utf-8"))
    assert orthanc["DicomAlwaysAllowStore"] is False
    titles = [title for title, *_ in orthanc["DicomModalities"].values()]
    assert load_config(DOCKER / "bridge.toml").listener.ae_title in titles  # it sends the results
    doors = [key for key in orthanc if key.startswith("DicomAlwaysAllow")]
    assert not any(orthanc[key] for key in doors)
    assert orthanc["AuthenticationEnabled"] is True


def test_the_viewer_can_show_what_the_bridge_sends(services: dict[str, Any]) -> None:
    version = re.search(r":v(\d+)\.(\d+)", services["ohif"]["image"])
    assert version is not None
    if (int(version[1]), int(version[2])) < (3, 11):  # the first one that shows label maps
        (destination,) = load_config(DOCKER / "bridge.toml").destinations
        assert destination.kinds == (ResultKind.BINARY,)


def test_the_viewer_asks_orthanc(services: dict[str, Any]) -> None:
    nginx = (DOCKER / "ohif" / "nginx.conf").read_text(encoding="utf-8")
    orthanc = json.loads((DOCKER / "orthanc.json").read_text(encoding="utf-8"))
    assert f"set $orthanc http://orthanc:{orthanc['HttpPort']};" in nginx
    assert f"location {orthanc['DicomWeb']['Root']} {{" in nginx
    roots = dict(re.findall(r"(\w+Root): '(.*)'", APP_CONFIG.read_text(encoding="utf-8")))
    assert roots == {"qidoRoot": "/dicom-web", "wadoRoot": "/dicom-web", "wadoUriRoot": "/wado"}
    assert orthanc["DicomWeb"]["Root"] == f"{roots['wadoRoot']}/"
    assert "location = /wado {" in nginx  # Orthanc's own default
    assert set(services["ohif"]["networks"]) & set(services["orthanc"]["networks"])
    (port,) = services["ohif"]["ports"]
    assert f"listen {port.rpartition(':')[2]};" in nginx
    assert nginx.count("{") == nginx.count("}")
