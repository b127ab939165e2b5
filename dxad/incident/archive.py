"""The service that stores the rows around incidents, and reads them again, off the event loop.

Docket.windows ── once a second ──▶ Evidence (files in state_dir/evidence)
"""

import asyncio
import logging
import threading

from dxad.alarmsection import IncidentsSection
from dxad.incident.docket import Docket
from dxad.incident.evidence import Evidence, Window, as_csv, as_document
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Document

__all__ = ["Archive"]

log = logging.getLogger(__name__)


class Archive:
    """Takes windows from the docket, as long as it exists."""

    def __init__(
        self, docket: Docket, evidence: Evidence, *, clock: Clock, health: Health, metrics: Metrics
    ) -> None:
        """Tell `health` of a disk that takes nothing, and `metrics` of every window that is lost."""
        docket.keeps_windows = True
        self._docket = docket
        self._evidence = evidence
        self._clock = clock
        self._health = health
        self._lost = metrics.counter("dxad_evidence_lost_total")
        self._overrun = 0
        """How many the docket had lost when it was asked last."""
        self._storing = threading.Lock()
        """A thread may still be at it when the gateway ends."""

    async def run(self) -> None:
        """Store what there is, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + NS_PER_S)
            if self._docket.windows:
                await asyncio.to_thread(self.store)

    def adjust(self, section: IncidentsSection) -> None:
        """Keep as much as another configuration says, from the next window on."""
        self._evidence.adjust(files=section.evidence_files, size=section.evidence_size)

    def store(self) -> None:
        """Store what there is, now: one that cannot be stored is lost, and a condition says why."""
        with self._storing:
            while self._docket.windows:
                self._put(self._docket.windows.popleft())
            self._count_overrun()

    def _put(self, window: Window) -> None:
        try:
            self._evidence.put(window)
        except OSError as error:
            self._lost.add()
            text = f"the rows around incident {window.incident} are lost: {error.strerror or error}"
            self._health.raise_condition("evidence.failed", "evidence", text)
        else:
            self._health.clear("evidence.failed", "evidence")

    def _count_overrun(self) -> None:
        lost = self._docket.windows_lost
        if lost > self._overrun:
            if not self._overrun:
                log.warning("more incidents ended at once than can be stored: the rows around some are lost")
            self._lost.add(lost - self._overrun)
            self._overrun = lost

    async def document(self, incident: str, rows: int) -> Document | None:
        """The window of an incident as JSON, `rows` rows at most; None where none is stored."""
        window = await asyncio.to_thread(self._evidence.get, incident)
        return None if window is None else await asyncio.to_thread(as_document, window, rows)

    async def csv(self, incident: str) -> str | None:
        """All of it as CSV."""
        window = await asyncio.to_thread(self._evidence.get, incident)
        return None if window is None else await asyncio.to_thread(as_csv, window)
