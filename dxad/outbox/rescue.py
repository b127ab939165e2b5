"""What is done about damage while the outbox runs: a large file is checked, a damaged one is taken over from.

Both in processes of their own, which are asked for what they find; what they say is stored between other
commits. A restart goes on with what was set aside and is not taken over; what is, is deleted after a while.
"""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgpack

from dxad.errors import NotConnected
from dxad.outbox import database, remains
from dxad.outbox.commits import Commits
from dxad.outbox.report import Report
from dxad.outbox.store import Store
from dxad.types import Record

__all__ = ["Rescue"]

log = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 2**16
_AGAIN_S: Final = 1.0
_CLEARED_S: Final = 3600.0


class Rescue:
    """Looks after damage, one thing at a time."""

    def __init__(
        self,
        path: Path | None,
        commits: Commits,
        store: Store,
        report: Report,
        *,
        tell: Callable[[Record], Any],
    ) -> None:
        """Look after the file at `path`; `tell` is given an event of what was taken over."""
        self._path = path
        self._commits = commits
        self._store = store
        self._report = report
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._to_check = False
        self._clear_at = 0.0

    def note_opened(self) -> None:
        """The file was opened: what was too large to be checked at once is checked later."""
        self._to_check = self._path is not None and self._path.exists() and database.is_large(self._path)

    def look(self) -> None:
        """See whether there is something to do, and begin it."""
        if self._store.rewound:
            sinks, self._store.rewound = self._store.rewound, []
            log.error("the place of %s was damaged on disk: all that is kept is delivered again", sinks)
            event = self._report.rewound(sinks)
            if event is not None:
                self._tell(event)
        if self._path is None or self._commits.degraded is not None or self._task is not None:
            return
        left = remains.left(self._path)
        now = asyncio.get_running_loop().time()
        if left:
            self._begin(self._take_over(left[-1]))
        elif self._to_check:
            self._to_check = False
            self._begin(self._check(self._path))
        elif now >= self._clear_at:
            self._clear_at = now + _CLEARED_S
            self._begin(self._clear())

    async def close(self) -> None:
        """Let go of what is under way; a restart goes on with it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work, name="outbox rescue")
        self._task.add_done_callback(self._end)

    def _end(self, done: asyncio.Task[None]) -> None:
        self._task = None
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("the outbox's rescue failed: %s", error)

    async def _check(self, path: Path) -> None:
        verdict = b"".join([each async for each in self._said("dxad.outbox.checking", path)]).decode()
        if verdict and verdict != "ok":
            log.error("%s: %s", path, verdict)
            await self._commits.ask(partial(self._store.condemn, verdict))

    async def _clear(self) -> None:
        for each, why in await self._commits.ask(self._store.clear_remains) or ():
            log.warning("%s is deleted, what it held was taken over: %s", each, why)

    async def _take_over(self, aside: Path) -> None:
        """Store again what can be read of a damaged file, and was not delivered."""
        began = asyncio.get_running_loop().time()
        self._report.damaged(aside)
        await self._ask(partial(self._store.begin_rescue, aside))
        unpacker = msgpack.Unpacker(max_buffer_size=2**30)
        counts: Counter[str] = Counter()
        async for chunk in self._said("dxad.outbox.salvage", aside):
            unpacker.feed(chunk)
            for kind, rows in unpacker:
                if kind == "done":
                    counts.update({each: rows[each] for each in ("damaged", "frames", "missing_bytes")})
                    counts["complete"] = 1
                    continue
                stored, dropped = await self._ask(partial(self._store.adopt, kind, rows))
                counts.update(stored)
                self._report.count_lost(dropped)
                self._commits.tell_news()
        remains.mark(aside)
        took_s = asyncio.get_running_loop().time() - began
        log.warning(
            "%s: %d records taken over in %.1f s, %d had been delivered, %d and %d frames of its log were"
            " damaged%s%s",
            aside, counts["taken_over"], took_s, counts["delivered"], counts["damaged"], counts["frames"],
            f"; {counts['missing_bytes']} bytes of it are gone" if counts["missing_bytes"] else "",
            "" if counts["complete"] else ", and reading ended early",
        )  # fmt: skip
        event = self._report.taken_over(aside, counts, self._store.verdict(aside))
        if event is not None:
            self._tell(event)

    async def _ask(self, ask: Callable[[], Any]) -> Any:
        """Ask the store until its disk answers."""
        while True:
            try:
                return await self._commits.ask_or_raise(ask)
            except NotConnected:
                await asyncio.sleep(_AGAIN_S)

    async def _said(self, module: str, path: Path) -> AsyncIterator[bytes]:
        """What one of our modules says about a file."""
        command, environment = database.child(module, path)
        self._process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)
        assert self._process.stdout is not None
        try:
            while chunk := await self._process.stdout.read(_CHUNK_BYTES):
                yield chunk
        finally:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGKILL)  # its own kill() may take the exit status away
            await self._process.wait()
            self._process = None
