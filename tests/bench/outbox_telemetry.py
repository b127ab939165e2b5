"""What telemetry of all 500 channels costs at the gateway's load (5,000 values a second), for each profile.

telemetry MODE.PROFILE cpu      of the daemon, % of a core; reference: the same without telemetry
telemetry MODE.PROFILE stored   MB a day of records, as they go into the outbox; reference: eight bytes for
                                each value that came (mode all), or for each mean (mode mean, 10 s)
telemetry MODE.PROFILE disk     MB a day that the daemon had written to the disk, the outbox's log and its
                                database; reference: the records
telemetry MODE.PROFILE lost     rows and records that were lost

Without telemetry nothing is written between events: what one of them costs is `written alone` of the rates.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dxad.assembly import PROFILES
from tests.bench import sources_gateway as gateway
from tests.bench.report import Metric

__all__ = ["telemetry"]

_DAY_S: Final = 86_400
_VALUE_BYTES: Final = 8
_CHANNELS: Final = 500
_EVERY_S: Final = 10
_MODES: Final = {"": 0.0, "all": gateway.VALUES_PER_S, "mean": _CHANNELS / _EVERY_S}
"""By mode, values a second; without any, the reference."""


def telemetry(folder: Path, for_s: float) -> dict[str, Metric]:
    """Measure all of them; one run for each profile and mode, of ten seconds' stretches."""
    found: dict[str, Metric] = {}
    for_s = max(_EVERY_S, for_s // _EVERY_S * _EVERY_S)
    with gateway.load(folder, "") as offered:
        for profile in PROFILES:
            runs = {mode: _run(folder, offered, for_s, profile, mode) for mode in _MODES}
            for mode in filter(None, _MODES):
                name = f"telemetry {mode}.{profile}"
                cpu, stored, disk, lost = runs[mode]
                found |= {
                    f"{name} cpu": Metric(value=cpu, unit="% of a core", reference=runs[""][0]),
                    f"{name} stored": Metric(
                        value=stored, unit="MB/day", reference=_MODES[mode] * _VALUE_BYTES * _DAY_S / 1e6
                    ),
                    f"{name} disk": Metric(value=disk, unit="MB/day", reference=stored),
                    f"{name} lost": Metric(value=lost, unit="rows", goal=0, at_most=True),
                }
    return found


def _run(
    folder: Path, offered: Mapping[str, Any], for_s: float, profile: str, mode: str
) -> tuple[float, float, float, float]:
    """% of a core, MB a day of records and on disk, and what was lost."""
    config = folder / f"{profile}{mode}.toml"
    section = (
        f'\n[telemetry.all]\nchannels = ["*.*"]\nevery = "{_EVERY_S}s"\nmode = "{mode}"\n' if mode else ""
    )
    sink = '\n[sinks.log]\ntype = "file"\npath = "telemetry.jsonl"\n'
    grown = (
        '\n[outbox]\nreserve = "0B"\n'  # what a file takes once, after its first start, is none of a day's
    )
    config.write_text(gateway.configuration(folder, offered, profile=profile) + sink + grown + section)
    with gateway.running(config) as daemon:
        before, begun, spent_s = gateway.settled(folder, daemon)
        written = _written(daemon.pid)
        time.sleep(for_s)
        used_s, took_s = gateway.cpu_s(daemon.pid) - spent_s, time.monotonic() - begun
        written = _written(daemon.pid) - written
        after = gateway.status(folder)
    grown = {
        key: after["telemetry"]["all"][key] - before["telemetry"]["all"][key]
        for key in ("bytes", "rows_lost", "records_lost")
        if mode
    }
    a_day = _DAY_S / took_s / 1e6
    lost = grown.get("rows_lost", 0) + grown.get("records_lost", 0)
    return 100 * used_s / took_s, grown.get("bytes", 0) * a_day, written * a_day, lost


def _written(pid: int) -> int:
    """Source: `man 5 proc_pid_io`, write_bytes."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith("write_bytes"))
