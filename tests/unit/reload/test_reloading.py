"""Whoever asks for a reload is told what became of it: the caller, the log, systemd, and the conditions."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dxad import config
from dxad.assembly import Assembly
from dxad.errors import ConfigError
from dxad.keeping import Keeping
from dxad.outbox import Outbox
from dxad.reloading import Reloading
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from tests.patience import PATIENCE_S

TEXT = """
[sources.plc]
type = "modbus"
url = "tcp://127.0.0.1:1"
period = "1s"
channels = { x = { register = "input:1", encoding = "int16" } }

[pipelines.pump]
channels = ["plc.*"]
model = { type = "zscore" }

[sinks.log]
type = "file"
path = "log.jsonl"
"""


class Daemon:
    """What `dxad run` is made of, without signals and a socket."""

    def __init__(self, path: Path) -> None:
        clock = SystemClock()
        self.path = path
        self.health, self.metrics = Health(clock), Metrics()
        self.outbox = Outbox(
            None, max_bytes=2**20, commit_window_s=0.0, health=self.health, metrics=self.metrics, clock=clock
        )
        self.assembly = Assembly(
            config.load(path), boot="boot", clock=clock, health=self.health, metrics=self.metrics,
            outbox=self.outbox,
        )  # fmt: skip
        self.supervisor = Supervisor(clock, self.health)
        keeping = Keeping(
            lambda: self.assembly.pipelines, path.parent / "pipelines", tell=self.assembly.tell,
            worker=self.assembly.worker, clock=clock, health=self.health, metrics=self.metrics,
        )  # fmt: skip
        self.reloading = Reloading(
            path, self.assembly, self.supervisor, keeping, health=self.health, metrics=self.metrics
        )

    def write(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    @property
    def rejected(self) -> str | None:
        """The detail of the condition, while it holds."""
        return next((each.detail for each in self.health.active if each.code == "config.rejected"), None)

    def counted(self) -> dict[str, int]:
        return self.metrics.by_label("dxad_reloads_total", "result")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Daemon]:
    (folder / "dxad.toml").write_text(f'state_dir = "{folder}"\n{TEXT}')
    daemon = Daemon(folder / "dxad.toml")
    try:
        async with daemon.outbox, daemon.supervisor as supervisor:
            for name, service in daemon.assembly.services().items():
                supervisor.start(name, service)
            supervisor.start("reloading", daemon.reloading.run)
            yield daemon
    finally:
        daemon.assembly.close()
        gc.unfreeze()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.to_thread(lambda: None)


async def test_what_changed_is_told_and_taken_up(tmp_path, caplog):
    caplog.set_level("INFO")
    async with serving(tmp_path) as daemon:
        daemon.write('path = "log.jsonl"', 'path = "other.jsonl"')
        daemon.write('model = { type = "zscore" }', 'model = { type = "zscore" }\nalarm.severity = "low"')
        answer = await daemon.reloading.reload()
        assert answer["applied"]
        assert answer["lines"] == ["pipelines.pump changed: alarm.severity", "sinks.log changed: path"]
        assert answer["untouched"] == 1
        assert "pipelines.pump changed: alarm.severity; sinks.log changed: path; 1 node" in caplog.text
        assert daemon.assembly.pipelines["pump"].section.alarm.severity == "low"
        assert daemon.counted() == {"applied": 1}


async def test_nothing_to_do_is_an_answer_too(tmp_path):
    async with serving(tmp_path) as daemon:
        nodes = daemon.assembly.nodes
        answer = await daemon.reloading.reload()
        assert (answer["applied"], answer["lines"], answer["untouched"]) == (False, [], 3)
        assert daemon.assembly.nodes is nodes


async def test_a_dry_run_tells_and_does_nothing(tmp_path):
    async with serving(tmp_path) as daemon:
        nodes = daemon.assembly.nodes
        daemon.write("[sinks.log]", "[sinks.more]")
        answer = await daemon.reloading.reload(dry_run=True)
        assert (answer["applied"], answer["lines"]) == (False, ["sinks.log removed", "sinks.more added"])
        daemon.write("modbus", "modbas")
        with pytest.raises(ConfigError, match="did you mean 'modbus'"):
            await daemon.reloading.reload(dry_run=True)
        assert daemon.assembly.nodes is nodes
        assert daemon.rejected is None
        assert daemon.counted() == {}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ('type = "modbus"', 'type = "modbas"', ["4: sources.plc.type: no source of type 'modbas'"]),
        ('state_dir = "', 'state_dir = "/other', ["1: state_dir: cannot change while dxad runs"]),
        ("[sources.plc]", 'memory_max = "1KiB"\n[sources.plc]', ["3: memory_max: allows 0.0 MiB"]),
        (
            "[sources.plc]",
            'gateway.id = "x"\ncontrol.group = "y"\n[sources.plc]',
            ["3: gateway.id: cannot change", "4: control.group: cannot change"],
        ),
        (
            'model = { type = "zscore" }',
            'model = { type = "tflite", path = "none" }',
            ["11: pipelines.pump.model: the pipeline would lose the one it has"],
        ),
        ("[sinks.log]", "[sinks.log", ["13: "]),
    ],
)
async def test_every_mistake_is_told_with_its_line_and_nothing_happens(tmp_path, caplog, old, new, lines):
    async with serving(tmp_path) as daemon:
        nodes = daemon.assembly.nodes
        daemon.write(old, new)
        with pytest.raises(ConfigError) as refused:
            await daemon.reloading.reload()
        told = str(refused.value).splitlines()
        assert len(told) == len(lines)
        for found, expected in zip(told, lines, strict=True):
            assert found.startswith(f"{daemon.path}:{expected}")
        assert daemon.assembly.nodes is nodes
        assert daemon.rejected == str(refused.value)
        assert str(refused.value) in caplog.text
        daemon.write(new, old)
        await daemon.reloading.reload()
        assert daemon.rejected is None
        assert daemon.counted() == {"refused": 1, "applied": 1}


async def test_a_signal_is_answered_by_the_condition_alone(tmp_path):
    async with serving(tmp_path) as daemon:
        daemon.write("[sinks.log]", "[sinks.log")
        for _ in range(5):
            daemon.reloading.hang_up()
        await until(lambda: daemon.rejected is not None)
        daemon.write("[sinks.log", "[sinks.more]")
        daemon.reloading.hang_up()
        await until(lambda: daemon.rejected is None)
        assert list(daemon.assembly.delivers) == ["more"]
        assert daemon.counted()["refused"] == 1  # five signals at once are one


async def test_reloads_come_one_after_the_other_and_too_many_are_refused(tmp_path, monkeypatch):
    async with serving(tmp_path) as daemon:
        under_way, most = 0, 0
        prepare = daemon.assembly.prepare

        def counted(wanted):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            made = prepare(wanted)
            under_way -= 1
            return made

        monkeypatch.setattr(daemon.assembly, "prepare", counted)
        answers = await asyncio.gather(*(daemon.reloading.reload() for _ in range(9)), return_exceptions=True)
        refused = [each for each in answers if isinstance(each, ConfigError)]
        assert [str(each) for each in refused] == ["8 reloads are waiting already"]
        assert most == 1


async def test_whoever_asked_may_leave(tmp_path):
    async with serving(tmp_path) as daemon:
        daemon.write("[sinks.log]", "[sinks.more]")
        asking = asyncio.create_task(daemon.reloading.reload())
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await daemon.reloading.reload()
        assert list(daemon.assembly.delivers) == ["more"]


async def test_a_stop_in_the_middle_of_a_swap_leaves_nothing_running(tmp_path, monkeypatch):
    async with serving(tmp_path) as daemon:
        swapping, tidy_up = asyncio.Event(), daemon.assembly._tidy_up

        async def slow(old):
            swapping.set()
            await asyncio.sleep(0.2)
            await tidy_up(old)

        monkeypatch.setattr(daemon.assembly, "_tidy_up", slow)
        daemon.write("[sinks.log]", "[sinks.more]")
        asking = asyncio.create_task(daemon.reloading.reload())
        await swapping.wait()
    with pytest.raises(ConfigError, match="is stopping"):
        await asking
    assert list(daemon.assembly.delivers) == ["more"]
    assert daemon.supervisor.names == ()


async def test_a_bug_is_told_to_whoever_asked_and_the_next_reload_is_served(tmp_path, monkeypatch, caplog):
    async with serving(tmp_path) as daemon:

        def broken(_config):
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(daemon.assembly, "prepare", broken)
            with pytest.raises(ConfigError, match="the reload failed by a bug"):
                await daemon.reloading.reload()
        assert "ZeroDivisionError" in caplog.text
        assert daemon.rejected is not None
        async with asyncio.timeout(PATIENCE_S):
            await daemon.reloading.reload()
        assert daemon.rejected is None


async def test_the_service_manager_is_told_of_the_beginning_and_the_end(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(PATIENCE_S)
        async with serving(tmp_path) as daemon:
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
            await daemon.reloading.reload()
            daemon.write("modbus", "modbas")
            with pytest.raises(ConfigError):
                await daemon.reloading.reload()
        for _ in range(2):  # taken up or refused: it is ready again
            assert manager.recv(4096).decode().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).decode() == "READY=1\nSTATUS=1 sources, 1 pipelines, 1 sinks"


async def test_the_level_of_the_log_is_taken_up(tmp_path):
    import logging

    before = logging.getLogger().level
    try:
        async with serving(tmp_path) as daemon:
            daemon.write("[sources.plc]", 'log = "error"\n[sources.plc]')
            assert (await daemon.reloading.reload())["lines"] == ["log changed"]
            assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(before)
