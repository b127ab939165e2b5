"""Keeps services running for years.

A service is a coroutine function that runs until it is cancelled. It handles what it expects; anything else
that escapes is a bug: it is logged once with its traceback, the service is restarted after a growing wait,
and given up into a condition when it fails too often. This is the only broad `except` in dxad.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from dxad.errors import EndOfStream
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health

__all__ = ["RestartPolicy", "Supervisor"]

log = logging.getLogger(__name__)

Run = Callable[[], Awaitable[None]]

_CANCELS: Final = 3
_CANCEL_AGAIN_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a service may fail."""

    most: int = 5
    """Failures within `within_s` after which it is given up."""
    within_s: float = 300.0
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0


def _kind(name: str) -> str:
    """What a service is, where there are several: `ingest` of `ingest.plc`."""
    return name.partition(".")[0]


@dataclass(slots=True)
class _Service:
    name: str
    run: Run
    policy: RestartPolicy
    task: asyncio.Task[None] | None = None
    failures: list[int] = field(default_factory=list)
    logged: set[str] = field(default_factory=set)
    stopping: bool = False
    """A service may answer its cancellation with an error: that is logged, and it stays stopped."""


class Supervisor:
    """Runs services as named tasks; an asynchronous context manager that leaves none behind."""

    def __init__(self, clock: Clock, health: Health, *, policy: RestartPolicy | None = None) -> None:
        self._clock = clock
        self._health = health
        self._policy = policy or RestartPolicy()
        self._services: dict[str, _Service] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._services:  # in the middle of a change of services, more may have come
            await self.stop(*reversed(self._services))

    def start(self, name: str, run: Run) -> None:
        """Run a service under a name that is not in use."""
        if name in self._services:
            raise ValueError(f"a service {name!r} runs already")
        service = _Service(name, run, self._policy)
        self._services[name] = service
        service.task = asyncio.create_task(self._keep(service), name=name)

    async def stop(self, *names: str) -> None:
        """Cancel these services, in this order, and wait until each has ended.

        Those of one kind that stand side by side, such as all of `ingest.…`, end at the same time: one that
        hangs keeps the others, and whoever stops us, waiting no longer than it does alone.
        """
        for _, alike in itertools.groupby(names, _kind):
            await asyncio.gather(*map(self._stop, alike))

    async def _stop(self, name: str) -> None:
        """Cancel this service, and wait until it has ended."""
        service = self._services.pop(name, None)
        if service is None or service.task is None:
            return
        service.stopping = True
        for _ in range(_CANCELS):  # a library may swallow one, and the service go on
            service.task.cancel()
            await asyncio.wait([service.task], timeout=_CANCEL_AGAIN_S)
            if service.task.done():
                break
            log.warning("%s has not ended %g s after it was cancelled", name, _CANCEL_AGAIN_S)
        self._health.clear("service.failed", name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are in use."""
        return tuple(self._services)

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the services that have neither ended nor been given up."""
        return tuple(
            name for name, each in self._services.items() if each.task is not None and not each.task.done()
        )

    async def _keep(self, service: _Service) -> None:
        waits = Backoff(first_s=service.policy.first_wait_s, most_s=service.policy.most_wait_s)
        while True:
            try:
                await service.run()
            except EndOfStream:
                log.info("%s: ended", service.name)
                return
            except Exception as error:  # noqa: BLE001 - the one place: whatever escapes a service is a bug
                if not self._may_restart(service, error) or service.stopping:
                    return
                if len(service.failures) == 1:
                    waits.reset()
            else:
                return
            await self._clock.sleep_until(self._clock.now() + int(waits.next_s() * 1e9))

    def _may_restart(self, service: _Service, error: Exception) -> bool:
        """Log the bug, the first time with its traceback; False when it has happened too often."""
        text = f"{type(error).__name__}: {error}"
        log.error("%s failed: %s", service.name, text, exc_info=error if text not in service.logged else None)
        if len(service.logged) < 100:
            service.logged.add(text)
        now = self._clock.now()
        horizon = now - int(service.policy.within_s * 1e9)
        service.failures = [at for at in service.failures if at > horizon] + [now]
        if len(service.failures) >= service.policy.most:
            self._health.raise_condition("service.failed", service.name, text)
            return False
        return True
