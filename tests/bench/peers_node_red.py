"""Node-RED: `mqtt in`, which parses JSON, wired to `file`, which appends each message as a line.

It gets the editor and all else that it starts with, but no word to its makers. Without a store, a function
keeps the newest message and counts, and the count is written every second, since nothing else would show
that all have come.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.peers_run import Running, logged, until
from tests.bench.sources_paced import free_port

__all__ = ["node_red"]

_VERSION: Final = re.compile(r"Node-RED version: v(\S+)[\s\S]*?Node.js +version: v(\S+)")
_COUNT: Final = "flow.set('newest', msg.payload); flow.set('count', (flow.get('count') || 0) + 1);"
_TELL: Final = "return { payload: flow.get('count') || 0 };"


@contextmanager
def node_red(program: Path, folder: Path, broker: str, *, stored: bool) -> Iterator[Running]:
    """Run it, with its files in this folder."""
    store, log = folder / "store", folder / "log"
    settings = {
        "uiPort": free_port(),
        "uiHost": "127.0.0.1",
        "flowFile": "flows.json",
        "telemetry": {"enabled": False},
    }
    (folder / "settings.js").write_text(f"module.exports = {json.dumps(settings)};\n")
    (folder / "flows.json").write_text(json.dumps(_flow(broker, store, stored=stored)))
    command = [str(program), "--userDir", str(folder), "--settings", str(folder / "settings.js")]
    with logged(command, log) as child:
        found = _VERSION.search(until(child, log, "Started flows", "Connected to broker"))
        version = "Node-RED {} on Node.js {}".format(*found.groups()) if found else "Node-RED"
        count = _lines if stored else _told
        yield Running(pid=child.pid, stored=lambda: count(store), version=version)


def _flow(broker: str, store: Path, *, stored: bool) -> list[dict[str, Any]]:
    """What its editor would draw: nodes by id, and under `wires` whom each tells."""
    host, _, port = broker.partition(":")
    to_broker = {"id": "broker", "type": "mqtt-broker", "broker": host, "port": port, "autoConnect": True}
    heard = {"id": "in", "type": "mqtt in", "broker": "broker", "topic": "load/+", "qos": "0", "inputs": 0}
    file = {"type": "file", "filename": str(store), "filenameType": "str", "encoding": "none", "wires": [[]]}
    if stored:
        nodes = [
            {**heard, "datatype": "json", "wires": [["out"]]},
            {**file, "id": "out", "appendNewline": True, "overwriteFile": "false"},
        ]
    else:
        nodes = [
            {**heard, "datatype": "json", "wires": [["count"]]},
            {"id": "count", "type": "function", "func": _COUNT, "outputs": 0, "wires": []},
            {"id": "each", "type": "inject", "props": [], "repeat": "1", "once": False, "wires": [["tell"]]},
            {"id": "tell", "type": "function", "func": _TELL, "outputs": 1, "wires": [["out"]]},
            {**file, "id": "out", "appendNewline": False, "overwriteFile": "true"},
        ]
    return [
        {"id": "tab", "type": "tab", "label": "peers"},
        to_broker,
        *({**each, "z": "tab"} for each in nodes),
    ]


def _lines(store: Path) -> int:
    """How many whole lines it has; 0 before there is one."""
    return store.read_bytes().count(b"\n") if store.exists() else 0


def _told(store: Path) -> int:
    """What it holds; 0 before it holds something."""
    text = store.read_text() if store.exists() else ""
    return int(text) if text else 0
