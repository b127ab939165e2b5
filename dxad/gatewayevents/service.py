"""The service that tells what the gateway does: it starts, it is alive, it is unwell, it stops."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Final

from dxad.assembly import Assembly, hash_of
from dxad.event import Event, identity, rfc3339
from dxad.gatewayevents.holdoff import HoldOff, News
from dxad.gatewayevents.runmark import Mark, Previous, RunMark
from dxad.runtime.clock import Clock
from dxad.runtime.health import CONDITIONS
from dxad.types import NS_PER_S, Document, Lane

__all__ = ["GatewayEvents"]

log = logging.getLogger(__name__)

_LOOK_NS: Final = NS_PER_S
_MARK_NS: Final = 60 * NS_PER_S
"""How far apart signs of life on disk are: flash wears."""
_EXPIRES: Final = 2.5
"""Heartbeats: two may be lost on the way before the gateway is taken for dead."""
_NAMED_MOST: Final = 20
_STORE_S: Final = 2.0
"""How long a stop waits for a disk."""
_DELIVER_S: Final = 1.0
"""How long a stop waits for sinks to take what is told last."""
_POLL_S: Final = 0.02


class GatewayEvents:
    """Tells `dxad.gateway.*`; `started` comes first, then `run`, then `stopped`."""

    def __init__(self, assembly: Assembly, mark: RunMark, *, clock: Clock) -> None:
        """Tell of what `assembly` runs, as its configuration says; keep the sign of life in `mark`."""
        self._assembly = assembly
        self._mark = mark
        self._clock = clock
        self._holdoff = HoldOff()
        self._began = clock.now()
        self._marked = self._began
        self._beat: int | None = None
        """Stream time of the last sign of life that was told."""
        self._interval = 0
        """What was told then of how often they come; ns, 0 for never."""

    # -- the life of a run --------------------------------------------------------------------------------

    async def started(self) -> None:
        """The outbox is open: tell of the start, and how the last run ended."""
        now = self._began = self._clock.now()
        mark = self._sign(now)
        previous = await asyncio.to_thread(self._mark.read, mark)
        await self._note(mark)
        self._log(previous)
        self._assembly.tell(
            self._event(
                "started",
                now,
                {
                    **self._identity(),
                    "heartbeat_s": self._heartbeat / NS_PER_S,
                    "previous": previous.document(),
                },
                identity(self._gateway, self._boot, "started", now),
                attributes=self._expiry(now),
            )
        )
        self._beat, self._interval = now, self._heartbeat

    async def run(self) -> None:
        """Tell what is due, once a second, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)
            await self.look()

    async def look(self) -> None:
        """Tell what is due now."""
        now = self._clock.now()
        for news in self._news(now):
            self._assembly.tell(self._of_condition(now, news))
        if self._due(now):
            self._tell_alive(now)
        if now - self._marked >= _MARK_NS:
            await self._note(self._sign(now))

    async def stopped(self, reason: str) -> None:
        """Nothing else will happen: tell of it, and give sinks that are there a moment to take it."""
        now = self._clock.now()
        event = self._event(
            "stopped",
            now,
            {**self._identity(), "reason": reason, "uptime_s": self._uptime_s(now)},
            identity(self._gateway, self._boot, "stopped", now),
        )
        await asyncio.wait([self._assembly.store(event)], timeout=_STORE_S)
        await self._wait_for_sinks()
        await self._note(self._sign(self._clock.now(), stopped=reason))

    # -- what is told -------------------------------------------------------------------------------------

    def _due(self, now: int) -> bool:
        """A heartbeat is due when it is time, or when others are expected from now on."""
        if not self._heartbeat:
            self._beat, self._interval = None, 0
            return False
        changed = self._heartbeat != self._interval
        return changed or self._beat is None or now - self._beat >= self._heartbeat

    def _tell_alive(self, now: int) -> None:
        kind = self._kind
        event = self._event(
            "heartbeat",
            now,
            self._facts(now),
            f"{kind}{identity(self._boot, now)[: 32 - len(kind)]}",
            attributes=self._expiry(now),
            replaces=kind,
        )
        self._beat, self._interval = now, self._heartbeat
        self._assembly.tell(event)

    @property
    def _kind(self) -> str:
        """How the ids of this gateway's heartbeats begin."""
        return identity(self._gateway, "heartbeat")[:15] + "-"

    def _facts(self, now: int) -> Document:
        nodes, outbox = self._assembly, self._assembly.outbox.snapshot()
        down = [name for name, each in nodes.ingests.items() if not each.connected]
        conditions = nodes.health.active
        return {
            **self._identity(),
            "uptime_s": self._uptime_s(now),
            "heartbeat_s": self._heartbeat / NS_PER_S,
            "sources": {"up": len(nodes.ingests) - len(down), "down": len(down)},
            "sources_down": down[:_NAMED_MOST],
            "incidents_open": sum(len(each.watch.open_incidents()) for each in nodes.pipelines.values()),
            "outbox": {
                "stored": outbox["stored"],
                "bytes": outbox["bytes"],
                "dead_letters": outbox["dead_letters"],
                "degraded": outbox["degraded"],
            },
            "pending": {
                name: outbox["sinks"][name]["pending"] for name in list(outbox["sinks"])[:_NAMED_MOST]
            },
            "dropped": outbox["dropped"],
            "conditions": [
                {"code": each.code, "subject": each.subject, "severity": CONDITIONS[each.code].severity}
                for each in conditions[:_NAMED_MOST]
            ],
            "conditions_total": len(conditions),
        }

    def _news(self, now: int) -> list[News]:
        section = self._assembly.config.gateway
        wanted = [
            each for each in self._assembly.health.active if CONDITIONS[each.code].severity in section.tell
        ]
        return list(self._holdoff.look(now, wanted, section.tell_after))

    def _of_condition(self, now: int, news: News) -> Event:
        condition = news.condition
        kind = CONDITIONS[condition.code]
        return self._event(
            "condition",
            now,
            {
                "phase": news.phase,
                "code": condition.code,
                "subject": condition.subject,
                "severity": kind.severity,
                "meaning": kind.meaning,
                "detail": condition.detail,
                "since_utc_ns": self._clock.utc(news.since),
                "times": news.times,
            },
            identity(
                self._gateway,
                self._boot,
                "condition",
                condition.code,
                condition.subject,
                news.phase,
                news.since,
            ),
            subject=f"{condition.code}/{condition.subject}",
        )

    def _event(
        self,
        what: str,
        now: int,
        data: Document,
        id_: str,
        *,
        subject: str = "",
        attributes: Mapping[str, str] | None = None,
        replaces: str = "",
    ) -> Event:
        return Event(
            id_,
            f"dxad.gateway.{what}",
            f"/{self._gateway}",
            self._clock.utc(now),
            data,
            subject=subject,
            lane=Lane.NORMAL,
            at=now,
            attributes=attributes or {},
            replaces=replaces,
        )

    # -- what is known ------------------------------------------------------------------------------------

    def snapshot(self) -> Document:
        """The last sign of life that was told, as JSON."""
        now = self._clock.now()
        return {
            "every_s": self._heartbeat / NS_PER_S or None,
            "last_s": None if self._beat is None else round((now - self._beat) / NS_PER_S, 1),
            "conditions_told": self._holdoff.told,
        }

    @property
    def _gateway(self) -> str:
        return self._assembly.config.gateway.id

    @property
    def _boot(self) -> str:
        return self._assembly.outbox.boot.id

    @property
    def _heartbeat(self) -> int:
        return self._assembly.config.gateway.heartbeat

    def _identity(self) -> Document:
        return {"version": version("dxad"), "config": hash_of(self._assembly.config)}

    def _uptime_s(self, now: int) -> float:
        return round((now - self._began) / NS_PER_S, 1)

    def _expiry(self, now: int) -> dict[str, str]:
        if not self._heartbeat:
            return {}
        return {"expiresat": rfc3339(self._clock.utc(now + int(_EXPIRES * self._heartbeat)))}

    # -- signs of life ------------------------------------------------------------------------------------

    def _sign(self, now: int, *, stopped: str = "") -> Mark:
        right = self._clock.synchronised
        return Mark(self._boot, now, self._clock.utc(now), right, version("dxad"), stopped)

    async def _note(self, mark: Mark) -> None:
        """Put a sign of life on disk; one that fails is not worth more than a line: the next may not."""
        self._marked = mark.at_ns
        try:
            await asyncio.to_thread(self._mark.write, mark)
        except OSError as error:
            log.warning("the next start will not know how this run ended: %s", error.strerror or error)

    def _log(self, previous: Previous) -> None:
        off = "" if previous.off_s is None else f", its last sign of life {previous.off_s:.0f} s ago"
        match previous.ended:
            case "killed" | "power_cut":
                how = "was killed" if previous.ended == "killed" else "ended with the machine's power"
                log.warning("the run before this one %s%s", how, off)
            case "clean":
                log.info("the run before this one was stopped (%s)%s", previous.reason, off)
            case _:
                log.info("how the run before this one ended is not known, if there was one")

    async def _wait_for_sinks(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DELIVER_S):
                while self._owed():  # noqa: ASYNC110 - what is waited for is counted in a thread
                    await asyncio.sleep(_POLL_S)

    def _owed(self) -> bool:
        """Whether a sink that is up has not been offered everything."""
        backlogs = (
            self._assembly.outbox.backlog(name) for name, each in self._assembly.delivers.items() if each.up
        )
        return any(each.pending > each.refused for each in backlogs)
