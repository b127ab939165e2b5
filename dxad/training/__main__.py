"""`python -m dxad.training ROWS.npy BUNDLE WINDOW_ROWS`: learn in a process of its own; prints JSON.

Beside the rows, a `.json` of the same name has their channels, their period, when each is stuck, and perhaps
`by`, the channel that tells the regimes apart, and `utc`, when the first and the last row were.
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
    ids = [each.id for each in channels]
    by = head.get("by") or ""
    recorded = Recording(
        channels,
        head["period"],
        values,
        head["stuck_rows"],
        by=values[:, ids.index(by)] if by else None,
        by_channel=by,
        utc=head.get("utc"),
    )
    try:
        made = learn(recorded, Path(folder), rows_most=int(rows))
    except ModelError as error:
        sys.stdout.buffer.write(orjson.dumps({"error": str(error)}))
        return 1
    sys.stdout.buffer.write(orjson.dumps({"version": made.version, "rows": made.manifest.rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
