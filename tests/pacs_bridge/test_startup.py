"""What is said before the service starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.startup import startup_faults


def test_files_of_secrets_that_cannot_be_read_are_named_by_their_keys(
    make_config: Callable[..., BridgeConfig], ram_folder: Path
) -> None:
    (ram_folder / "token").write_text("t")
    config = make_config(
        destinations='[{ name = "archive", url = "https://pacs.example.org",'
        ' auth = { token_file = "token" }, tls = { ca_file = "gone.pem" } }]',
        sources='[{ name = "vna", kind = "dicomweb", url = "https://vna.example.org",'
        ' auth = { user = "u", password_file = "nowhere" } }]',
    )
    faults = {fault.key: fault.problem for fault in startup_faults(config)}
    assert set(faults) == {"destinations[0].tls.ca_file", "sources[0].auth.password_file"}
    assert "gone.pem" in faults["destinations[0].tls.ca_file"]
