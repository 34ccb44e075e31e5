"""Control as a process of its own. Nothing here imports what computes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from inference.reasons import Reason
from pacs_bridge.child import leave_on_signals, open_log
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.control.routes import Routes
from pacs_bridge.control.server import ControlServer
from pacs_bridge.control.token import Token
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.ledger import Ledger

#: How long a call waits for the ledger: shorter than the plugin waits for us.
_LEDGER_WAIT_S = 1.0


def run_control(config: BridgeConfig, announce: Callable[[int], None] = lambda _port: None) -> None:
    """Answer calls until SIGTERM or SIGINT. In the main thread.

    Parameters
    ----------
    config
        The whole configuration; it has the table ``control``.
    announce
        Told the port once calls are answered.

    Raises
    ------
    BridgeError
        If the ledger cannot be opened, the token cannot be had or the port not bound.
    """
    assert config.control is not None
    leave = leave_on_signals()
    log = open_log(config)
    token = Token.load(config.control_token_path)
    ledger = Ledger.open(config.ledger_path, busy_timeout_s=_LEDGER_WAIT_S)
    routes = Routes(ledger, IdentityHash.load(config.data_folder))
    address = (config.control.bind, config.control.port)
    try:
        server = ControlServer(address, token, routes.answer, log)
    except OSError as error:
        detail = f"control.port: cannot listen at {address[0]}:{address[1]}: {error.strerror}"
        raise PermanentError(Reason.CANNOT_LISTEN, detail) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="control")
        thread.start()
        announce(server.port)
        leave.wait()
        server.shutdown()
        thread.join()
    ledger.close()
