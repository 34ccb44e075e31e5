"""``python -m pacs_bridge`` is ``pacs-bridge``."""

from __future__ import annotations

from pacs_bridge.cli.main import main

main()
