"""Time, driven by the rows of a recording."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np

from dxad import config as configuration
from dxad.assembly import Assembly
from dxad.config import Config
from dxad.errors import ConfigError
from dxad.event import Event, identity, rfc3339
from dxad.ingest import waiting_most
from dxad.outbox import Outbox
from dxad.recording import CELLS_AT_ONCE, Piece, Recording
from dxad.recording.columns import Matched
from dxad.replay.feed import Feed, Wire
from dxad.replay.watch import OnEvent, OnScores, Watch
from dxad.ring.newest import Newest
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import I8, NS_PER_S, Document

__all__ = ["Drive", "within"]

_BEGIN_NS: Final = 1000 * NS_PER_S
"""The stream time of the first row, at least: a slot of every grid begins there."""
_GAP_SLOTS_MOST: Final = 100_000_000
"""A pause of more slots of the finest grid is a mistaken time: it would take hours to pass through."""
_HOUR_NS: Final = 3600 * NS_PER_S
_NEVER: Final = int(np.iinfo(np.int64).max)
_COARSE_SAMPLES: Final = Newest.DEPTH // 4
"""Of a channel that is coarser than the rows it is joined to, between two looks of its readers."""
_ROWS_AT_ONCE: Final = 4096
"""Of the finest grid, between two ticks."""


class Drive:
    """A gateway without wires, and the rows that it shall see."""

    def __init__(
        self,
        config: Config,
        recording: Recording,
        matched: Matched,
        *,
        first: int,
        config_hash: str,
        extra: Sequence[str] = (),
        tick: int | None = None,
        on_event: OnEvent = lambda _event: None,
        on_scores: OnScores = lambda _name, _reading: None,
        on_time: Callable[[int], None] = lambda _utc: None,
    ) -> None:
        """Build everything.

        Args:
            config: whose sources have the stand-ins' clocks already.
            recording: the data.
            matched: which of its columns is which channel.
            first: the UTC time, in nanoseconds, at which the grids begin.
            config_hash: of the configuration as it was given: part of every incident's evidence.
            extra: columns of no channel that are wanted beside the others.
            tick: stream time between two ticks; None chooses.
            on_event: told each event.
            on_scores: told each stretch of a pipeline's scores.
            on_time: told the UTC time, in nanoseconds, of each tick.

        Raises:
            ConfigError: something cannot be built.
        """
        self._recording = recording
        self._grids = _Grids(config)
        self._begin = -(-_BEGIN_NS // self._grids.common) * self._grids.common
        self.utc_offset = first - self._begin
        self.clock = SteppedClock(start=self._begin, utc_offset=self.utc_offset)
        self.health, metrics = Health(self.clock), Metrics()
        outbox = Outbox(  # never opened: events are taken where they are told
            None, max_bytes=config.outbox.max_size, commit_window_s=0.0, health=self.health, metrics=metrics,
            clock=self.clock,
        )  # fmt: skip
        self.assembly = Assembly(
            config, boot=identity("replay", recording.digest), clock=self.clock, health=self.health,
            metrics=metrics, outbox=outbox,
            sources={name: Wire(section.declared(name)) for name, section in config.sources.items()},
        )  # fmt: skip
        self.assembly.docket.adjust(config.incidents, config_hash)
        self._on_event = on_event
        self._on_time = on_time
        self._heard: list[tuple[int, int, int, Event]] = []
        """Events that one of another pipeline may still come before: time, pipeline, number, event."""
        self._events = 0
        self.watches = {
            name: Watch(
                pipeline, self.assembly.learnings.get(name), utc_offset=self.utc_offset,
                on_event=partial(self._hear, place), on_scores=on_scores,
            )
            for place, (name, pipeline) in enumerate(self.assembly.pipelines.items())
        }  # fmt: skip
        columns = list(dict.fromkeys((*matched.column_of.values(), *extra)))
        self._columns = columns
        self._feeds = {
            name: Feed(
                ingest,
                columns=[
                    place for place, each in enumerate(ingest.ring.channels) if each.id in matched.column_of
                ],
                places=[
                    columns.index(matched.column_of[each.id])
                    for each in ingest.ring.channels
                    if each.id in matched.column_of
                ],
            )
            for name, ingest in self.assembly.ingests.items()
        }
        self._tick = tick or self._longest_tick()
        widest = {name: max(1, len(each.ring.channels)) for name, each in self.assembly.ingests.items()}
        self._rows_at_once = max(
            1, min(waiting_most(config.sources[name]) // 2 // width for name, width in widest.items())
        )
        """Of the recording, between two looks: half of the samples that may wait."""
        self._samples = dict.fromkeys(self._feeds, 0)
        """By source: the rows that held a sample of it."""
        self._next_tick = self._tick_after(self._begin)
        self._next_seal, self._sealed_next = self._seal_after(self._begin)
        self._newest = self._begin
        self._ends: dict[str, int] = {}
        """By source, when the slot of the recording's last row is sealed: nothing is known of later ones."""
        self.rows = 0

    def _longest_tick(self) -> int:
        """So far no ring is overrun, and no seal takes much memory."""
        rings = [each.ring for each in self.assembly.ingests.values()]
        for pipeline in self.assembly.pipelines.values():
            rings += [pipeline.scores, *(each.ring for each in pipeline.stages.features)]
        held = min(ring.slots * ring.period for ring in rings) // 2
        widest = max(len(ring.channels) for ring in rings)
        return max(1, min(held, self._grids.finest * min(_ROWS_AT_ONCE, max(1, CELLS_AT_ONCE // widest))))

    def close(self) -> None:
        """Let go of models."""
        self.assembly.close()

    def pieces(self, start: int | None, stop: int | None) -> Iterator[Piece]:
        """The rows from UTC `start` until before `stop`, each piece after it was driven through.

        After the last, everything is sealed and scored.

        Raises:
            ConfigError: the recording cannot be read, or its times cannot be right.
        """
        for whole in self._recording.pieces(self._columns):
            piece = within(whole, start, stop)
            if len(piece):
                self._take(piece)
                yield piece
        self._ends = {
            name: (self._newest // each.ring.period + 1) * each.ring.period + each.lateness
            for name, each in self.assembly.ingests.items()
        }
        self._run_to(max(self._ends.values()))
        self._look(max(self._ends.values()))
        self._pass_on(_NEVER)

    def column(self, name: str) -> int:
        """The place of a column in the pieces."""
        return self._columns.index(name)

    def _take(self, piece: Piece) -> None:
        at = piece.times - self.utc_offset + self._grids.finest // 2
        newest = np.maximum(np.maximum.accumulate(at), self._newest)
        self._check(newest)
        stops = self._stops(piece, at, newest)
        begin = 0
        while begin < len(at):
            if begin in stops:
                self._run_to(int(newest[begin]))
                self._look(int(newest[begin]), stops.pop(begin))
            end = int(np.searchsorted(newest, min(self._next_tick, self._next_seal), side="right"))
            end = min(end, next(iter(stops), end))
            if end > begin:
                self._accept(piece, at, begin, end)
                begin = end
            if begin < len(at):
                self._run_to(int(newest[begin]))
        self._newest = int(newest[-1])
        self.rows += len(at)

    def _stops(self, piece: Piece, at: I8, newest: I8) -> dict[int, frozenset[str] | None]:
        """Before which rows some pipelines must have taken in all that came before; None is all of them.

        A late sample fills its cell after the row was read, not before; of a coarser channel only the last
        few samples are known, among which must be the one from before each row; and only so many samples may
        wait for their slots to end.
        """
        stops: dict[int, frozenset[str] | None] = {}
        some_late = bool((at < newest).any())
        coarse = {source for _, source, _ in self._grids.coarse}
        for name, feed in self._feeds.items():
            if not (some_late or name in coarse):
                continue
            there = feed.has_any(piece.values, piece.bad)
            due = there & feed.late(at, newest)
            if name in coarse:
                count = self._samples[name] + np.cumsum(there)
                due |= there & (count % _COARSE_SAMPLES == 0)
                self._samples[name] = int(count[-1])
            for row in np.flatnonzero(due).tolist():
                stops[row] = (stops.get(row) or frozenset()) | self._grids.readers[name]
        stops |= dict.fromkeys(range(-self.rows % self._rows_at_once, len(at), self._rows_at_once))
        return dict(sorted(stops.items()))

    def _accept(self, piece: Piece, at: I8, begin: int, end: int) -> None:
        part = slice(begin, end)
        bad = None if piece.bad is None else piece.bad[part]
        for feed in self._feeds.values():
            feed.accept(at[part], self.rows + begin, piece.values[part], bad)

    def _check(self, newest: I8) -> None:
        steps = np.diff(newest, prepend=self._newest if self.rows else newest[0])
        largest = int(np.argmax(steps))
        if steps[largest] > _GAP_SLOTS_MOST * self._grids.finest:
            here = int(newest[largest])
            before = here - int(steps[largest])
            told = [rfc3339(each + self.utc_offset - self._grids.finest // 2) for each in (before, here)]
            raise ConfigError(
                f"{self._recording.path}: times jump from {told[0]} to {told[1]}, which is "
                f"{steps[largest] // self._grids.finest:,} slots; if that is right, replay one part at a time"
            )

    def _run_to(self, until: int) -> None:
        """All ticks before a stream time."""
        while (at := min(self._next_tick, self._next_seal)) < until:
            if at == self._next_tick:
                self._look(at)
                self._on_time(at + self.utc_offset)
                self._next_tick = self._tick_after(at)
                frames = [watch.pipeline.stages.frame for watch in self.watches.values()]
                self._pass_on(min((frame.next * frame.schema.period for frame in frames), default=_NEVER))
            else:
                self._look(at, self._sealed_next)
            self._next_seal, self._sealed_next = self._seal_after(at)

    def _tick_after(self, at: int) -> int:
        """The next tick for all; one is at each full hour, since what may be told is counted by the hour."""
        hour = ((at + self.utc_offset) // _HOUR_NS + 1) * _HOUR_NS - self.utc_offset
        return min((at // self._tick + 1) * self._tick, hour)

    def _seal_after(self, at: int) -> tuple[int, frozenset[str]]:
        """When the next slot is sealed that is coarser than the rows it is joined to, less a nanosecond.

        Rows that are complete by then shall not see that slot, as they would not in the daemon: the pipelines
        that are named take them in before.
        """
        times: dict[int, set[str]] = {}
        for pipeline, source, period in self._grids.coarse:
            lateness = self.assembly.ingests[source].lateness
            seal = ((at + 1 - lateness) // period + 1) * period + lateness - 1
            times.setdefault(seal, set()).add(pipeline)
        first = min(times, default=_NEVER)
        return first, frozenset(times.get(first, ()))

    def _look(self, at: int, pipelines: frozenset[str] | None = None) -> None:
        """What the daemon does at a tick; for some pipelines alone and their sources, if they are named."""
        self.clock.advance(at)
        for name, ingest in self.assembly.ingests.items():
            if pipelines is None or self._grids.readers[name] & pipelines:
                ingest.tick(min(at, self._ends.get(name, at)))
        for name, watch in self.watches.items():
            if pipelines is None or name in pipelines:
                watch.step()

    def _hear(self, place: int, event: Event) -> None:
        self._events += 1
        self._heard.append((event.time_utc - self.utc_offset, place, self._events, event))

    def _pass_on(self, until: int) -> None:
        """Tell what happened up to a stream time that all pipelines have passed, in the order of time."""
        self._heard.sort(key=lambda each: each[:3])
        while self._heard and self._heard[0][0] <= until:
            self._on_event(self._heard.pop(0)[3])

    def sources(self) -> dict[str, Document]:
        """What became of the samples, by source."""
        wanted = ("rows", "samples", "folded", "late", "rejected")
        found = {}
        for name, ingest in self.assembly.ingests.items():
            snapshot = ingest.snapshot()
            found[name] = {key: snapshot[key] for key in wanted}
        return found

    def slots_of(self, times: I8, period: int) -> I8:
        """The rows of a grid into which these UTC times fall."""
        slots: I8 = (times - self.utc_offset + self._grids.finest // 2) // period
        return slots


class _Grids:
    """The steps of everything that has rows."""

    def __init__(self, config: Config) -> None:
        sources = {name: each.period for name, each in config.sources.items() if each.period is not None}
        steps = list(sources.values())
        coarse: set[tuple[str, str, int]] = set()
        self.readers: dict[str, frozenset[str]] = dict.fromkeys(config.sources, frozenset())
        """By source: the pipelines that read it."""
        for name, section in config.pipelines.items():
            found = configuration.shape(section, config.sources)
            joined = found.joined.period
            inputs = [(source, sources[source]) for source, _ in found.feeds]
            inputs += [(each.source, each.outputs.period) for each in found.features]
            for source, period in inputs:
                self.readers[source] |= {name}
                if period > joined:
                    coarse.add((name, source, period))
            steps += [joined, *(period for _, period in inputs)]
        self.finest = min(sources.values())
        self.common = math.lcm(*steps)
        self.coarse = sorted(coarse)
        """By pipeline and source: the steps of inputs that are coarser than the rows they are joined to."""


def within(piece: Piece, start: int | None, stop: int | None) -> Piece:
    """The rows from UTC `start` until before `stop`."""
    if start is None and stop is None:
        return piece
    wanted = np.ones(len(piece), dtype=np.bool_)
    if start is not None:
        wanted &= piece.times >= start
    if stop is not None:
        wanted &= piece.times < stop
    return Piece(piece.times[wanted], piece.values[wanted], None if piece.bad is None else piece.bad[wanted])
