"""The service that stores the rows around incidents, and reads them again, off the event loop.

Docket.windows ── once a second ──▶ Evidence (files in state_dir/evidence)
"""

import asyncio

from dxad.alarmsection import IncidentsSection
from dxad.incident.docket import Docket
from dxad.incident.evidence import Evidence, as_csv, as_document
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.types import NS_PER_S, Document

__all__ = ["Archive"]


class Archive:
    """Takes windows from the docket, as long as it exists."""

    def __init__(self, docket: Docket, evidence: Evidence, *, clock: Clock, health: Health) -> None:
        docket.keeps_windows = True
        self._docket = docket
        self._evidence = evidence
        self._clock = clock
        self._health = health

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
        while self._docket.windows:
            window = self._docket.windows.popleft()
            try:
                self._evidence.put(window)
            except OSError as error:
                text = f"the rows around incident {window.incident} are lost: {error.strerror or error}"
                self._health.raise_condition("evidence.failed", "evidence", text)
            else:
                self._health.clear("evidence.failed", "evidence")

    async def document(self, incident: str, rows: int) -> Document | None:
        """The window of an incident as JSON, `rows` rows at most; None where none is stored."""
        window = await asyncio.to_thread(self._evidence.get, incident)
        return None if window is None else await asyncio.to_thread(as_document, window, rows)

    async def csv(self, incident: str) -> str | None:
        """All of it as CSV."""
        window = await asyncio.to_thread(self._evidence.get, incident)
        return None if window is None else await asyncio.to_thread(as_csv, window)
