"""The null reader: a process that reads all wires of a load and keeps nothing but the sums.

    python -m hw_sim.load.null          lines on standard input and output:
    ◀ the map, as `Plan.map` makes it
    ▶ {"ready": true}                   from here on nothing is missed
    ◀ {name: values}                    the load has ended, and so many were sent
    ▶ {"cpu_s": …, "wires": {name: sums of tally.py}}, or {"error": …} instead of either

It ends early, and silently, when standard input does.
"""

import asyncio
import gc
import json
import logging
import sys
import time
from typing import Any, Final

from hw_sim.load.readers import READERS, Reader

__all__ = ["main"]

_LINE_BYTES: Final = 1 << 26
_LOOK_S: Final = 0.05
_LOOKS_AFTER: Final = 5
"""So often nothing has come when all that was sent is here, and nothing twice."""
_LOOKS_MOST: Final = 100
"""So often nothing has come when what is missing is lost; looks, as a machine may stand still for seconds."""


async def _serve() -> None:
    lines = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    document = json.loads(await lines.readline())
    readers: dict[str, Reader] = {
        name: READERS[wire["type"]](wire) for name, wire in document["wires"].items()
    }
    try:
        for reader in readers.values():
            await reader.start()
        gc.collect()
        gc.freeze()
        begin_s = time.process_time()
        _say({"ready": True})
        if line := await lines.readline():
            await _quiet(readers, json.loads(line))
            cpu_s = time.process_time() - begin_s
            wires = {name: reader.tally.document() for name, reader in readers.items()}
            _say({"cpu_s": round(cpu_s, 3), "wires": wires})
    finally:
        for reader in readers.values():
            await reader.close()


async def _quiet(readers: dict[str, Reader], sent: dict[str, int]) -> None:
    """Wait until all has come and nothing comes any more, or what is missing has not come for long."""
    looks, before = 0, -1
    while looks < _LOOKS_AFTER or (
        looks < _LOOKS_MOST and any(readers[name].tally.values < values for name, values in sent.items())
    ):
        now = sum(reader.tally.messages for reader in readers.values())
        looks, before = looks + 1 if now == before else 0, now
        await asyncio.sleep(_LOOK_S)


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read until told to stop."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_serve())
    except (OSError, EOFError, ValueError) as error:
        _say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
