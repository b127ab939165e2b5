"""The service that takes up a configuration that was edited, without a restart.

SIGHUP, POST /v1/reload ─▶ load ─▶ diff ─▶ build ─▶ swap ─▶ the answer, the log, systemd
                             └───────┴───────┴── a mistake: nothing has happened, and everybody is told why
"""

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from dxad import config as configuration
from dxad.assembly import Assembly, Prepared
from dxad.errors import ConfigError, Problem
from dxad.keeping import Keeping
from dxad.runtime import systemd
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from dxad.runtime.worker import Worker
from dxad.types import Document

__all__ = ["Reloading"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_WAITING_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class _Request:
    answer: asyncio.Future[Document] | None
    """Nobody waits for the answer to a signal."""
    dry_run: bool = False


class Reloading:
    """Takes up the configuration at a path, one reload after the other."""

    def __init__(
        self,
        path: Path,
        assembly: Assembly,
        supervisor: Supervisor,
        keeping: Keeping,
        *,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._path = path
        self._assembly = assembly
        self._supervisor = supervisor
        self._keeping = keeping
        self._health = health
        self._metrics = metrics
        self._requests: asyncio.Queue[_Request] = asyncio.Queue(_WAITING_MOST)

    def hang_up(self) -> None:
        """SIGHUP: reload soon; those that wait already will see the same file."""
        if self._requests.empty():
            self._requests.put_nowait(_Request(None))

    async def reload(self, *, dry_run: bool = False) -> Document:
        """Reload, or only say what would happen; whoever asked may leave, the reload is not broken off.

        Raises:
            ConfigError: the configuration is refused, with every mistake that is known.
        """
        answer: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
        try:
            self._requests.put_nowait(_Request(answer, dry_run))
        except asyncio.QueueFull:
            raise ConfigError(f"{_WAITING_MOST} reloads are waiting already") from None
        return await asyncio.shield(answer)

    async def run(self) -> None:
        """Serve one request after the other, until cancelled."""
        while True:
            await self._serve(await self._requests.get())

    async def _serve(self, request: _Request) -> None:
        refused = ConfigError(f"{self._path}: the reload failed by a bug, which the log tells of")
        found: Document | None = None
        if not request.dry_run:
            systemd.reloading()
        try:
            found = await self._reload(dry_run=request.dry_run)
        except ConfigError as error:
            refused = error
        except asyncio.CancelledError:
            refused = ConfigError(f"{self._path}: dxad is stopping")
            raise
        finally:  # whatever happened, and if it is a bug, before the supervisor hears of it
            if not request.dry_run:
                self._conclude(None if found is not None else refused)
            answer = request.answer
            if answer is not None and not answer.done():
                if found is not None:
                    answer.set_result(found)
                else:
                    answer.set_exception(refused)

    def _conclude(self, refused: ConfigError | None) -> None:
        result = "applied" if refused is None else "refused"
        self._metrics.counter("dxad_reloads_total", result=result).add()
        if refused is None:
            self._health.clear("config.rejected", "config")
        else:
            self._health.raise_condition("config.rejected", "config", str(refused))
            log.error("%s: refused, the configuration before goes on:\n%s", self._path, refused)
        systemd.ready(self._assembly.summary)

    async def _reload(self, *, dry_run: bool) -> Document:
        """Load, build and swap; loading and building are on a thread of their own.

        Raises:
            ConfigError: nothing has happened.
        """
        builder = Worker("build")
        try:
            config = await builder.run(partial(configuration.load, self._path))
            prepared = await builder.run(partial(self._located, partial(self._assembly.prepare, config)))
            if dry_run or not prepared.changes:
                prepared.discard()
            else:
                added = [each for each in config.pipelines if each not in self._assembly.pipelines]
                saved = await builder.run(lambda: {name: self._keeping.read(name) for name in added})
                await self._apply(prepared, saved)
        finally:
            builder.close()
        applied = bool(prepared.changes) and not dry_run
        if not dry_run:
            log.info("%s: %s", self._path, prepared.changes)
        return {"applied": applied, "lines": prepared.changes.lines(), **prepared.changes.document()}

    async def _apply(self, prepared: Prepared, saved: dict[str, Document]) -> None:
        """A swap that has begun is ended, even while the daemon is told to stop."""
        swap = asyncio.create_task(
            self._assembly.apply(prepared, self._supervisor, saved=saved), name="reload.swap"
        )
        try:
            await asyncio.shield(swap)
        finally:
            if not swap.done():
                await asyncio.wait([swap])
        logging.getLogger().setLevel(self._assembly.config.log.upper())
        gc.unfreeze()  # what is gone was frozen, and would stay for ever
        gc.collect()
        gc.freeze()

    def _located(self, build: Callable[[], T]) -> T:
        """What `build` returns; mistakes that it finds get the line of their key.

        Raises:
            ConfigError: it found some.
        """
        try:
            return build()
        except ConfigError as error:
            known = error.problems or (Problem(str(self._path), "", str(error)),)
            problems = [
                replace(each, where=configuration.where(self._path, each.key)) if each.key else each
                for each in known
            ]
            raise ConfigError(problems=problems) from error
