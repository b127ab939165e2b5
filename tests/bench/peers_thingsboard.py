"""The ThingsBoard IoT Gateway: an MQTT connector with a JSON converter, to its SQLite store.

It does not begin without a platform, so a broker plays one until it has begun, and is then gone. From then on
it does what a store is for: it keeps what it cannot deliver, and delivering costs it nothing. Its store is a
table with a row for each message.
"""

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.peers_feed import FIELDS
from tests.bench.peers_run import Running, logged, until
from tests.bench.sources_paced import broker_in

__all__ = ["EACH", "WHOLE", "thingsboard"]

EACH: Final = [{"type": "double", "key": key, "value": f"${{{key}}}"} for key in FIELDS]
"""Values of a message as its documentation names them, one by one."""
WHOLE: Final = ["*"]
"""All values of a message, whatever they are: the least that it can be asked to do."""

_VERSION: Final = re.compile(r"gateway version: (\S+)")
_NOBODY: Final = "http://127.0.0.1:9"
"""It asks its makers for news at each start."""
_LOGS: Final = ("database", "service", "connector", "converter", "tb_connection", "storage", "extension")


@contextmanager
def thingsboard(
    program: Path, folder: Path, broker: str, *, timeseries: list[dict[str, str]] | list[str]
) -> Iterator[Running]:
    """Run it, with its files in this folder."""
    log, store = folder / "log", folder / "data" / "data.db"
    for name in ("platform", "logs", "data"):
        (folder / name).mkdir()
    told = {"TB_GW_CONFIG_DIR": f"{folder}/", "HTTP_PROXY": _NOBODY, "HTTPS_PROXY": _NOBODY}
    with ExitStack() as up:
        files = {
            "tb_gateway.json": _gateway(up.enter_context(broker_in(folder / "platform"))),
            "mqtt.json": _connector(broker, timeseries),
            "logs.json": _logs(),
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        with logged([str(program)], log, cwd=folder, env={**os.environ, **told}) as child:
            said = until(child, log, "Gateway started.", "subscription success")
            up.close()
            version = _VERSION.search(said)
            yield Running(
                pid=child.pid,
                stored=lambda: _rows(store),
                version=f"ThingsBoard IoT Gateway {version[1] if version else '?'}",
            )


def _gateway(platform: str) -> dict[str, Any]:
    host, _, port = platform.partition(":")
    return {
        "thingsboard": {
            "host": host,
            "port": int(port),
            "remoteShell": False,
            "remoteConfiguration": False,
            "security": {"type": "accessToken", "accessToken": "peers"},
        },
        "storage": {"type": "sqlite", "data_file_path": "./data/"},
        "grpc": {"enabled": False},
        "connectors": [{"name": "plant", "type": "mqtt", "configuration": "mqtt.json"}],
    }


def _connector(broker: str, timeseries: list[dict[str, str]] | list[str]) -> dict[str, Any]:
    host, _, port = broker.partition(":")
    converter = {
        "type": "json",
        "deviceInfo": {
            "deviceNameExpressionSource": "topic",
            "deviceNameExpression": "(?<=load/)(.*)",
            "deviceProfileExpressionSource": "constant",
            "deviceProfileExpression": "default",
        },
        "timeout": 60000,
        "attributes": [],
        "timeseries": timeseries,
    }
    return {
        "broker": {"host": host, "port": int(port), "version": 5, "security": {"type": "anonymous"}},
        "mapping": [{"topicFilter": "load/+", "subscriptionQos": 0, "converter": converter}],
    }


def _logs() -> dict[str, Any]:
    """Everything as it is shipped, but to standard output alone."""
    each = {"handlers": ["console"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
        "loggers": dict.fromkeys(_LOGS, each),
        "root": {"level": "ERROR", "handlers": ["console"]},
    }


def _rows(store: Path) -> int:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        found: int = database.execute("SELECT count(*) FROM messages").fetchone()[0]
    return found
