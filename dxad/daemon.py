"""The life of the daemon: load, build, start, answer, reload, stop.

run ─▶ config ─▶ Assembly ─▶ control socket ─▶ outbox open ─▶ state read ─▶ services started ─▶ READY=1
                                                                     │ SIGTERM, SIGINT
exit 0 ◀─ socket gone ◀─ outbox closed ◀─ state stored ◀─ last events told, sinks stopped ◀─ others stopped ◀┘

The socket comes first and goes last: a second daemon ends there, before it has touched a file or a device.
"""

import asyncio
import fcntl
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from dxad import config as configuration
from dxad.assembly import PROFILES, Assembly
from dxad.config import Config
from dxad.control import Control
from dxad.errors import ConfigError
from dxad.gateway import Gateway
from dxad.gatewayevents import GatewayEvents, RunMark
from dxad.keeping import Keeping
from dxad.outbox import Limits, Outbox
from dxad.reloading import Reloading
from dxad.runtime import logs, systemd
from dxad.runtime.clock import Clock, SystemClock, boot_id
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from dxad.types import NS_PER_S

__all__ = ["SWITCH_S", "run", "serve"]

log = logging.getLogger(__name__)

SWITCH_S: Final = 0.0005
"""With Python's default of 5 ms, a busy inference thread delays the event loop by 11 ms at p99."""
_STALLED_S: Final = {"the event loop": 10.0, "inference": 10.0, "the disk": 30.0}
"""What takes longer than this is a hang, and the watchdog shall see it; an SD card may take seconds."""


def run(path: Path) -> int:
    """Run the daemon of a configuration file until it is told to stop; returns the exit status.

    Raises:
        ConfigError: with every mistake.
    """
    config = configuration.load(path)
    logs.setup(config.log)
    asyncio.run(_until_signalled(config, path))
    return 0


async def _until_signalled(config: Config, path: Path) -> None:
    stop, hang_up = Stop(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask, number.name)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    await serve(config, stop, path=path, hang_up=hang_up)


class Stop(asyncio.Event):
    """Set once the daemon shall stop."""

    reason = "it was told to"

    def ask(self, reason: str) -> None:
        """Stop, and say why."""
        self.reason = reason
        self.set()


async def serve(config: Config, stop: Stop, *, path: Path, hang_up: asyncio.Event) -> None:
    """Run everything `config`, which was read from `path`, names until `stop` is set.

    Whenever `hang_up` is set, the configuration is read anew.

    Raises:
        ConfigError: something in it cannot be built here.
    """
    clock = SystemClock()
    health, metrics = Health(clock), Metrics()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=2, thread_name_prefix="resolver"))
    sys.setswitchinterval(SWITCH_S)
    outbox = Outbox(
        config.state_dir / config.outbox.path,
        max_bytes=config.outbox.max_size,
        commit_window_s=PROFILES[config.profile].commit_window_s,
        health=health,
        metrics=metrics,
        clock=clock,
        limits=Limits.of(config.outbox),
        gateway=config.gateway.id,
    )
    async with AsyncExitStack() as stack:
        assembly = Assembly(
            config, boot=boot_id(), clock=clock, health=health, metrics=metrics, outbox=outbox
        )
        stack.callback(assembly.close)
        gateway = Gateway(assembly, clock=clock, health=health, metrics=metrics, config_path=path)
        await stack.enter_async_context(Control(gateway, config.control))
        stack.enter_context(_claimed(config.state_dir))
        await stack.enter_async_context(outbox)
        events = GatewayEvents(assembly, RunMark(config.state_dir / "run"), clock=clock)
        await assembly.timekeeping.look()
        await events.started()
        await assembly.forget_removed_sinks()
        keeping = Keeping(
            lambda: assembly.pipelines, config.state_dir / "pipelines", tell=assembly.tell,
            worker=assembly.worker, clock=clock, health=health, metrics=metrics, docket=assembly.docket,
        )  # fmt: skip
        await keeping.restore()
        assembly.listeners.append(keeping.note)
        assembly.deciders.append(keeping.want)
        stack.push_async_callback(keeping.save)
        supervisor = await stack.enter_async_context(Supervisor(clock, health))
        stack.push_async_exit(_Farewell(assembly, supervisor, events, stop).say)
        for name, service in assembly.services().items():
            supervisor.start(name, service)
        supervisor.start("keeping", keeping.run)
        supervisor.start("gateway events", events.run)
        supervisor.start("watchdog", _Watchdog(assembly, supervisor, clock).run)
        reloading = Reloading(path, assembly, supervisor, keeping, health=health, metrics=metrics)
        supervisor.start("reloading", reloading.run)
        supervisor.start("hang up", partial(_hang_up, hang_up, reloading))
        gateway.reloading, gateway.events = reloading, events
        gc.collect()
        gc.freeze()  # what is built now lives for ever: no collection need look at it again
        gateway.state = "running"
        log.info(
            "ready: %d sources, %d pipelines, %d sinks, state in %s",
            len(assembly.ingests), len(assembly.pipelines), len(assembly.delivers), config.state_dir,
        )  # fmt: skip
        systemd.ready(assembly.summary)
        await stop.wait()
        gateway.reloading = None
        gateway.state = "stopping"
        systemd.stopping()
        log.info("stopping")


async def _hang_up(asked: asyncio.Event, reloading: Reloading) -> None:
    while True:
        await asked.wait()
        asked.clear()
        log.info("SIGHUP: reloading")
        reloading.hang_up()


class _Farewell:
    """What comes first at the end: all is told while sinks are still there to take it."""

    def __init__(self, assembly: Assembly, supervisor: Supervisor, events: GatewayEvents, stop: Stop) -> None:
        self._assembly = assembly
        self._supervisor = supervisor
        self._events = events
        self._stop = stop

    async def say(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop all services but those that deliver, and tell what is to be told at the end."""
        while others := [name for name in self._supervisor.names if name not in self._assembly.delivering]:
            await self._supervisor.stop(*self._last_first(others))  # in the middle of a reload, more may come
        self._assembly.interrupt()
        reason = self._stop.reason if error is None else f"{type(error).__name__}: {error}"
        await self._events.stopped(reason)

    def _last_first(self, names: Iterable[str]) -> list[str]:
        """What produces before what consumes, whenever a reload has started which."""
        order = {name: place for place, name in enumerate(self._assembly.services())}
        youngest_first = [*names][::-1]
        return sorted(youngest_first, key=lambda name: order.get(name, len(order)), reverse=True)


@contextmanager
def _claimed(state_dir: Path) -> Iterator[None]:
    """The state directory, made if need be, for us alone: two outboxes in one file would fight."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"state_dir {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(f"state_dir {state_dir}: another dxad works there") from None
    finally:
        os.close(descriptor)


class _Watchdog:
    """Tells systemd that data moves: the beat beats, no batch of inference and no commit hangs."""

    def __init__(self, assembly: Assembly, supervisor: Supervisor, clock: Clock) -> None:
        self._assembly = assembly
        self._supervisor = supervisor
        self._clock = clock

    async def run(self) -> None:
        interval_s = systemd.watchdog_s()
        while interval_s is not None:
            if self._alive():
                systemd.watchdog()
            await self._clock.sleep_until(self._clock.now() + int(interval_s / 3 * NS_PER_S))

    def _alive(self) -> bool:
        gone = {"ticker", "scoring"} - set(self._supervisor.running)
        if gone:
            log.error("watchdog: %s has ended", ", ".join(sorted(gone)))
            return False
        for name, silent_s in self._silent_s().items():
            if silent_s > _STALLED_S[name]:
                log.error("watchdog: %s hangs, for %.0f s now", name, silent_s)
                return False
        return True

    def _silent_s(self) -> dict[str, float]:
        return {
            "the event loop": (self._clock.now() - self._assembly.ticker.last) / NS_PER_S,
            "inference": self._assembly.worker.busy_s,
            "the disk": self._assembly.outbox.busy_s,
        }
