"""`python -m dxad.training ROWS.npy BUNDLE WINDOW_ROWS`: learn in a process of its own; prints JSON.

Beside the rows, a `.json` of the same name has their channels, their period and when each is stuck.
"""

import os
import sys
from pathlib import Path

import numpy as np
import orjson

from dxad.errors import ModelError
from dxad.training.learn import Recording, learn
from dxad.types import Channel


def main() -> int:
    """Learn from a recording; 0 and `{"version", "rows"}`, or 1 and `{"error"}`."""
    recording, folder, rows = sys.argv[1:]
    os.nice(19)
    values = np.load(recording, allow_pickle=False).astype(np.float64)
    head = orjson.loads(Path(recording).with_suffix(".json").read_bytes())
    channels = tuple(Channel(each["id"], each["unit"]) for each in head["channels"])
    try:
        made = learn(
            Recording(channels, head["period"], values, head["stuck_rows"]), Path(folder), rows_most=int(rows)
        )
    except ModelError as error:
        sys.stdout.buffer.write(orjson.dumps({"error": str(error)}))
        return 1
    sys.stdout.buffer.write(orjson.dumps({"version": made.version, "rows": made.manifest.rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
