"""What `replay` shows: what is in the file, where a client finds it, how far it is, and what became of it."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hw_sim.plant import Recorded
from hw_sim.replay.playing import Playing
from hw_sim.replay.record import Record
from hw_sim.station import Station

__all__ = ["Desk"]

_LOOK_S: Final = 0.1
_BAD_SHOWN: Final = 3


class Desk:
    """Shows one playing."""

    def __init__(
        self, playing: Playing, *, as_json: bool, hold_s: float, linger_s: float, loop: bool
    ) -> None:
        self._playing = playing
        self._as_json = as_json
        self._hold_s = hold_s
        self._linger_s = linger_s
        self._loop = loop
        self._begin = self._end = 0.0

    def tell_record(self) -> None:
        """Say what was found in the file."""
        record = self._playing.record
        rows = len(record.values)
        said = f"{record.path}: {rows} rows, one each {record.period_s:g} s"
        said += " for want of times" if record.assumed else ""
        said += f"; labels: {', '.join(record.labels)}" if record.labels else "; no labels"
        click.echo(said, err=True)
        if record.holes:
            click.echo(f"{record.holes} cells have no value, {len(record.bad)} of them a wrong one", err=True)
        for each in record.bad[:_BAD_SHOWN]:
            click.echo(f"  {each}", err=True)

    @asynccontextmanager
    async def around(self, station: Station) -> AsyncIterator[None]:
        """Show where a client finds what, let it come before the first row, and read on after the last."""
        if self._as_json:
            click.echo(json.dumps({"type": "map", **self._map()}))
        else:
            for line in self._table():
                click.echo(line)
        sys.stdout.flush()
        await asyncio.sleep(self._hold_s)
        self._begin = time.monotonic()
        try:
            yield
        finally:
            self._end = time.monotonic()
        await self._quiet(station)

    async def _quiet(self, station: Station) -> None:
        """Stay until for so long nothing has gone to whoever listens."""
        before: Sequence[int] = ()
        while self._linger_s and (now := [wire.delivered for wire in station.wires]) != before:
            before = now
            await asyncio.sleep(self._linger_s)

    async def watch(self, station: Station) -> None:
        """Show how far it is, until cancelled."""
        console = Console(stderr=True)
        total = None if self._loop else len(self._playing.record.values)
        bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows, {task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        task = bar.add_task("", total=total, rate=0.0)
        plant = _plant(station)
        with bar:
            while True:
                rate = plant.played / (time.monotonic() - self._begin) if self._begin else 0.0
                bar.update(task, completed=plant.played, rate=rate)
                await asyncio.sleep(_LOOK_S)

    def tell_summary(self, station: Station) -> None:
        """Say what was played, and what became of it on the wires."""
        seconds, played = self._end - self._begin, _plant(station).played
        labels = _labels(self._playing.record, played)
        wires = {wire.name: dict(sorted(wire.counts.items())) for wire in station.wires}
        if self._as_json:
            summary = {
                "rows": played,
                "seconds": round(seconds, 3),
                "labels": labels,
                "wires": wires,
            }
            click.echo(json.dumps({"type": "summary", **summary}))
            return
        rate = f", {played / seconds:.0f}/s" if seconds else ""
        click.echo(f"{played} rows in {seconds:.1f} s{rate}")
        for label, each in labels.items():
            click.echo(f"{label:14} on in {each['rows']} rows, {each['onsets']} times")
        for wire, counts in wires.items():
            click.echo(f"{wire:14} " + ", ".join(f"{count} {name}" for name, count in counts.items()))

    def _map(self) -> Mapping[str, Any]:
        playing, about = self._playing, self._playing.about()
        return {
            "period_s": playing.record.period_s,
            "wires": {
                wire: {
                    **about[wire],
                    "fields": {
                        name: {"column": playing.columns[name], "at": at} for name, at in places.items()
                    },
                }
                for wire, places in playing.places().items()
            },
        }

    def _table(self) -> Sequence[str]:
        """Per wire what it needs, then a line per channel with its place on each."""
        playing, wires = self._playing, self._playing.places()
        told = [
            f"{wire:14} " + ", ".join(f"{key} {value}" for key, value in about.items())
            for wire, about in playing.about().items()
        ]
        rows = [["name", "column", *wires]]
        for name, column in playing.columns.items():
            rows.append([name, column, *(places.get(name, "") for places in wires.values())])
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        told += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return told


def _plant(station: Station) -> Recorded:
    return next(rig.recorded for rig in station.bench.rigs if rig.recorded is not None)


def _labels(record: Record, played: int) -> Mapping[str, Mapping[str, int]]:
    """By label, in how many of the rows that were played it was on, and how often it came."""
    said = {label: list(each[:played]) for label, each in record.labels.items()}
    return {
        label: {
            "rows": sum(map(bool, each)),
            "onsets": sum(now not in {"", before} for before, now in zip(["", *each], each, strict=False)),
        }
        for label, each in said.items()
    }
