"""The configuration file: what it gives, and every fault of it at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.destinations import ResultKind, StowDestinationConfig
from pacs_bridge.config.listener import OwnResults, TransferSyntax
from pacs_bridge.config.load import ConfigError, check_models, load_config
from pacs_bridge.config.sources import DicomwebSourceConfig, DimseSourceConfig
from pacs_bridge.queue import Priority

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "bridge.toml"

MINIMAL = """
data_folder = "data"
[listener]
peers = [{ ae_title = "CT1", addresses = ["10.1.2.3"] }]
[[destinations]]
name = "archive"
ae_title = "ARCHIVE"
host = "pacs"
port = 104
[[routes]]
name = "all"
model = "synthetic-3mm"
destinations = ["archive"]
"""


@pytest.fixture
def load(tmp_path):
    def write_and_load(text: str) -> BridgeConfig:
        path = tmp_path / "bridge.toml"
        path.write_text(text, encoding="utf-8")
        return load_config(path)

    return write_and_load


@pytest.fixture
def faults(load):
    def faults_of(text: str) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return {fault.key: fault.problem for fault in caught.value.faults}

    return faults_of


def test_the_shipped_example_loads():
    config = load_config(SHIPPED)

    assert config.data_folder == SHIPPED.parents[1] / "data"
    assert [route.name for route in config.routes] == ["emergency", "everything-else"]
    assert config.routes[0].priority is Priority.STAT


def test_the_shipped_example_shows_every_key_and_its_default(tmp_path):
    """Uncommented, it must say what is true: the same as the defaults."""
    shown = tmp_path / "shown.toml"
    shown.write_text(_uncommented(SHIPPED.read_text(encoding="utf-8")), encoding="utf-8")
    config = load_config(shown)

    for section in ("listener", "collector", "disk", "series", "workers", "control"):
        loaded = getattr(config, section)
        for key, field in type(loaded).model_fields.items():
            assert key in loaded.model_fields_set, f"{section}.{key} is not in the example"
            if not field.is_required():
                given = getattr(loaded, key)
                assert given == field.default or isinstance(given, Path), f"{section}.{key}"
    destination = config.destinations[0]
    assert set(type(destination).model_fields) == destination.model_fields_set
    assert destination.retry == type(destination).model_fields["retry"].default
    assert [source.kind for source in config.sources] == ["dicomweb", "dimse", "plan"]
    for shown in (config.destinations[1], *config.sources):
        assert set(type(shown).model_fields) == shown.model_fields_set
        for key, field in type(shown).model_fields.items():
            is_example = field.is_required() or key in ("auth", "calling_ae_title", "move_ae_title")
            assert is_example or getattr(shown, key) == field.default, f"{shown.name}.{key}"
    route = config.routes[1]
    assert set(type(route).model_fields) == route.model_fields_set
    assert set(type(route.postprocessing).model_fields) == route.postprocessing.model_fields_set
    shown_conditions = config.routes[0].select.model_fields_set | route.select.model_fields_set
    assert set(type(route.select).model_fields) == shown_conditions


def _uncommented(text: str) -> str:
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_key = line.startswith("# ") and (
            bare.split(" ")[0].replace("_", "").isalpha() and " = " in bare[:40]
        )
        is_table = line.startswith("# [") and bare.rstrip("]").strip("[").isalpha()
        is_continued = line.startswith(('#   "', "# ]"))
        lines.append(bare if is_key or is_table or is_continued else line)
    return "\n".join(lines)


STOW = """
[[destinations]]
name = "cloud"
url = "https://pacs.example.org/dicom-web/"
auth = { token_file = "token" }
tls = { ca_file = "ca.pem" }
"""
DICOMWEB = """
[[sources]]
name = "vna"
kind = "dicomweb"
url = "https://vna.example.org/dicom-web"
"""
DIMSE = """
[[sources]]
name = "pacs"
kind = "dimse"
ae_title = "PACS"
host = "pacs"
port = 104
"""


def test_a_destination_with_an_address_is_a_web_service(load, tmp_path):
    config = load(MINIMAL + STOW)

    cloud = config.destination("cloud")
    assert isinstance(cloud, StowDestinationConfig)
    assert cloud.url == "https://pacs.example.org/dicom-web"
    assert cloud.auth.token_file == tmp_path / "token"
    assert cloud.tls.ca_file == tmp_path / "ca.pem"


def test_sources_are_told_by_their_kind(load):
    config = load(MINIMAL + DICOMWEB + DIMSE)

    assert isinstance(config.source("vna"), DicomwebSourceConfig)
    assert isinstance(config.source("pacs"), DimseSourceConfig)
    assert config.source("other") is None


def test_faults_of_destinations_and_sources_name_the_key_alone(faults):
    found = faults(
        MINIMAL
        + STOW.replace("https:", "http:").replace("name =", "colour = 1\nname =")
        + DICOMWEB.replace('kind = "dicomweb"', 'kind = "ftp"')
        + DIMSE.replace("port = 104", 'port = 0\nretrieve = "c-steal"')
    )
    assert set(found) == {
        "destinations[1].colour",
        "sources[0]",
        "sources[1].port",
        "sources[1].retrieve",
    }
    assert found["sources[0]"] == "kind is one of dicomweb, dimse, plan"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('url = "http://vna.example.org/dicom-web"', "sources[0]"),
        ('url = "https://user:secret@vna.example.org/"', "sources[0].url"),
        ('url = "ftp://vna.example.org"', "sources[0].url"),
        ('url = "https://vna.example.org/?key=1"', "sources[0].url"),
    ],
)
def test_an_address_that_could_tell_a_secret_is_a_fault_that_does_not_repeat_it(faults, line, key):
    found = faults(MINIMAL + DICOMWEB.replace('url = "https://vna.example.org/dicom-web"', line))
    assert set(found) == {key}
    assert "secret" not in found[key]


@pytest.mark.parametrize(
    "text",
    [
        DICOMWEB.replace(
            "https://vna.example.org/dicom-web", "https://u:TopSecret/9@vna/dicom-web"
        ),
        DICOMWEB.replace("https://vna.example.org/dicom-web", "https://u:12/TopSecret@vna/x"),
        DICOMWEB.replace("https://vna.example.org/dicom-web", "https://[TopSecret/"),
        DICOMWEB.replace("https://vna.example.org/dicom-web", "https://TopSecret:x/"),
        DICOMWEB + 'auth = "Bearer TopSecret"',
        DICOMWEB + f'auth = {{ user = "{"TopSecret" * 40}", password_file = "p" }}',
        DICOMWEB + 'auth = { user = "TopSecret", password_file = ["TopSecret"] }',
        DICOMWEB + 'tls = "TopSecret"',
        STOW.replace("https://pacs", "https://u:TopSecret@pacs"),
        STOW.replace("https://pacs.example.org", "//u:TopSecret@pacs"),
        STOW.replace('{ token_file = "token" }', '"Bearer TopSecret"'),
        STOW.replace('"cloud"', '"https://u:TopSecret@pacs"'),
        DIMSE.replace('"pacs"', '"https://u:TopSecret@pacs"'),
        DIMSE + 'move_addresses = ["https://u:TopSecret@pacs"]',
        '[queue]\nurl = "postgresql://bridge:TopSecret@db/x"',
        '[queue]\nurl = "postgresql://bridge:x?TopSecret@db/x"',
        '[queue]\nurl = "postgresql://bridge@db/x?PASSWORD=TopSecret"',
        '[queue]\nurl = "mysql://bridge:TopSecret@db/x"',
        '[queue]\nurl = "postgresql://bridge:TopSecret[@db/x"',
        '[[routes]]\nname = "b"\nmodel = "m"\ndestinations = ["https://u:TopSecret@pacs"]',
    ],
)
def test_no_fault_repeats_what_may_be_a_secret(faults, text):
    found = faults(MINIMAL + text)
    assert found
    assert "TopSecret" not in str(found)


@pytest.mark.parametrize(
    "line",
    [
        'queue = "postgresql://bridge:TopSecret@db/x"',
        'sources = ["https://u:TopSecret@vna"]',
        'destinations = "https://u:TopSecret@vna"',
        'control = "TopSecret"',
    ],
)
def test_text_in_the_place_of_a_table_is_not_repeated(faults, line):
    found = faults(line + MINIMAL.replace("[[destinations]]", "[[others]]"))
    assert "TopSecret" not in str(found)
    assert any(key.startswith(line.partition(" ")[0]) for key in found)


def test_the_error_behind_a_fault_tells_no_value_either(load):
    with pytest.raises(ConfigError) as caught:
        load(MINIMAL + DICOMWEB + 'auth = "Bearer TopSecret"')
    assert "TopSecret" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "auth",
    [
        '{ user = "bridge" }',
        '{ token_file = "t", user = "b", password_file = "p" }',
        "{ token = 1 }",
    ],
)
def test_credentials_are_whole_and_in_files(faults, auth):
    (key,) = faults(MINIMAL + DICOMWEB + f"auth = {auth}")
    assert key.startswith("sources[0].auth")


def test_plain_http_needs_a_word_or_this_machine(load):
    for url in ("http://localhost:8042/dicom-web", "http://127.0.0.1", "http://[::1]:80/x"):
        load(MINIMAL + DICOMWEB.replace("https://vna.example.org/dicom-web", url))
    plain = DICOMWEB.replace("https:", "http:") + "allow_plain_http = true"
    assert load(MINIMAL + plain).sources[0].allow_plain_http


def test_c_move_needs_a_title_of_ours(faults):
    found = faults(MINIMAL + DIMSE + 'retrieve = "c-move"')
    assert found == {"sources[0]": "move_ae_title is needed for retrieve = 'c-move'"}


@pytest.mark.parametrize("address", ["pacs.example.org", "10.0.0.1/33", "10.0.0.1/24"])
def test_what_a_c_move_may_come_from_is_an_address_or_a_network(faults, address):
    move = 'retrieve = "c-move"\nmove_ae_title = "FETCH"\n'
    found = faults(MINIMAL + DIMSE + move + f'move_addresses = ["10.0.0.0/24", "{address}"]')
    assert list(found) == ["sources[0].move_addresses[1]"]
    assert address in found["sources[0].move_addresses[1]"]


def test_the_spool_is_no_name_of_a_source(faults):
    found = faults(MINIMAL + DIMSE.replace('"pacs"', '"spool"', 1))
    assert "spool" in found["sources"]


def test_no_default_opens_a_door(load):
    config = load(MINIMAL)

    assert config.listener.bind == "127.0.0.1"
    assert config.listener.own_results is OwnResults.REFUSE
    assert all("deflated" not in syntax for syntax in config.listener.transfer_syntaxes)
    assert config.destinations[0].deflated is False


def test_a_listener_without_peers_is_a_fault(faults):
    without = MINIMAL.replace('peers = [{ ae_title = "CT1", addresses = ["10.1.2.3"] }]', "")
    assert faults(without) == {"listener.peers": "missing"}
    empty = MINIMAL.replace('[{ ae_title = "CT1", addresses = ["10.1.2.3"] }]', "[]")
    assert set(faults(empty)) == {"listener.peers"}


def test_all_faults_are_said_at_once_each_with_its_key(faults):
    found = faults(
        """
data_folder = "data"
colour = "blue"
[listener]
ae_title = "A_TITLE_OF_17_CHR"
bind = "localhost"
port = 70000
max_pdu_kib = 64
peers = [{ ae_title = "CT1", addresses = ["10.1.2.3/8"] }, { ae_title = "CT2" }]
[collector]
quiet_period = 5
[[destinations]]
name = "archive"
ae_title = "BACK\\\\SLASH"
host = ""
port = "104"
kinds = ["labelmap", "surface"]
[[destinations]]
name = "archive"
ae_title = "X"
host = "pacs"
port = 104
[[routes]]
name = "all"
model = "synthetic-3mm"
destinations = ["archive", "attic"]
select = { series_description = "(" }
postprocessing = { largest_component = ["liver", "gills"] }
"""
    )

    assert found["colour"] == "unknown key"
    assert "16 characters, this one 17" in found["listener.ae_title"]
    assert "does not appear to be an IPv4 or IPv6 address" in found["listener.bind"]
    assert "65535" in found["listener.port"]
    assert "128" in found["listener.max_pdu_kib"]
    assert "host bits set" in found["listener.peers[0].addresses[0]"]
    assert found["listener.peers[1].addresses"] == "missing"
    assert found["collector.quiet_period"] == "unknown key"
    assert "backslash" in found["destinations[0].ae_title"]
    assert "destinations[0].host" in found
    assert "valid integer" in found["destinations[0].port"]
    assert "destinations[0].kinds[1]" in found
    assert found["destinations"] == "the name 'archive' is given 2 times"
    assert "no destination 'attic'; there is archive" in found["routes[0].destinations"]
    assert "not a regular expression" in found["routes[0].select.series_description"]
    assert "'gills'" in found["routes[0].postprocessing.largest_component"]
    assert len(found) == 16


def test_structures_of_a_route_may_be_named_by_their_groups_and_must_exist(load, faults):
    text = MINIMAL + 'structures = ["kidneys", "liver"]\n'
    assert load(text).routes[0].structures == ("kidney_right", "kidney_left", "liver")
    found = faults(MINIMAL + 'structures = ["elbow"]\n')
    assert "no such structure: 'elbow'" in found["routes[0].structures"]


@pytest.mark.parametrize(
    "title", ["", "   ", "SEVENTEEN_LETTERS", "NEW\\nLINE", "TAB\\tTITLE", "ÜBERWACHUNG"]
)
def test_what_is_no_ae_title_is_refused(faults, title):
    text = MINIMAL.replace("[listener]", f'[listener]\nae_title = "{title}"')
    assert list(faults(text)) == ["listener.ae_title"]


def test_an_ae_title_loses_its_padding(load):
    config = load(MINIMAL.replace("[listener]", '[listener]\nae_title = " BRIDGE 1  "'))
    assert config.listener.ae_title == "BRIDGE 1"


def test_types_are_not_guessed(faults):
    text = MINIMAL.replace("[listener]", '[listener]\nport = "11112"\nmax_associations = 2.0')
    assert set(faults(text)) == {"listener.port", "listener.max_associations"}


def test_a_peer_is_its_title_and_its_address(load):
    peer = load(MINIMAL).listener.peers[0]

    assert peer.allows("CT1", "10.1.2.3")
    assert not peer.allows("CT1", "10.1.2.4")
    assert not peer.allows("CT2", "10.1.2.3")


def test_a_star_stands_for_every_title_of_a_network(load):
    text = MINIMAL.replace(
        '{ ae_title = "CT1", addresses = ["10.1.2.3"] }',
        '{ ae_title = "*", addresses = ["10.1.0.0/16", "fd00::/8"] }',
    )
    peer = load(text).listener.peers[0]

    assert peer.allows("ANYBODY", "10.1.200.9")
    assert peer.allows("ANYBODY", "fd00::17")
    assert not peer.allows("ANYBODY", "10.2.0.1")


def test_deflated_syntaxes_cannot_be_accepted(faults):
    assert "1.2.840.10008.1.2.1.99" not in {syntax.uid for syntax in TransferSyntax}
    text = MINIMAL.replace("[listener]", '[listener]\ntransfer_syntaxes = ["deflated"]')
    assert list(faults(text)) == ["listener.transfer_syntaxes[0]"]


def test_relative_paths_start_at_the_file(load, tmp_path):
    config = load(MINIMAL + '\n[models]\nfolder = "weights"\n[log]\nfile = "/var/log/b.jsonl"\n')

    assert config.data_folder == tmp_path / "data"
    assert config.ledger_path == tmp_path / "data" / "ledger.sqlite"
    assert config.models.folder == tmp_path / "weights"
    assert config.log.file == Path("/var/log/b.jsonl")


def test_a_loaded_configuration_cannot_change(load):
    config = load(MINIMAL)
    with pytest.raises(ValidationError):
        config.listener.port = 104


def test_ranges_that_contradict_each_other_are_faults(faults):
    text = (
        MINIMAL
        + "select = { min_slices = 100, max_slices = 10 }\n"
        + "[disk]\naccept_above_free_gib = 1.0\nreserve_free_gib = 2.0\n"
        + "[workers]\nretry = { first_wait_s = 60.0, max_wait_s = 30.0 }\n"
    )
    assert set(faults(text)) == {"routes[0].select", "disk", "workers.retry"}


def test_a_file_that_is_not_there_or_not_toml_is_one_fault(load, tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        load("data_folder = ")


def test_names_lead_to_routes_and_destinations(load):
    config = load(MINIMAL)

    assert config.destination("archive") is config.destinations[0]
    assert config.destination("attic") is None
    assert config.route("all") is config.routes[0]
    assert config.destinations[0].kinds == (ResultKind.LABELMAP, ResultKind.BINARY)


def test_routes_to_a_model_that_is_not_in_the_store_are_named(load):
    config = load(MINIMAL)

    assert check_models(config, ["synthetic-3mm"]) == ()
    (fault,) = check_models(config, ["published-1.5mm"])
    assert str(fault) == "routes[0].model: no model 'synthetic-3mm'; there is published-1.5mm"


def test_the_shipped_example_is_toml_without_surprises():
    table = tomllib.loads(_uncommented(SHIPPED.read_text(encoding="utf-8")))
    assert set(table) == set(BridgeConfig.model_fields)
