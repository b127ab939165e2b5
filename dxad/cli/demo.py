"""`dxad demo`: the whole of dxad on a simulated machine, in a minute, with nothing but loopback.

hw_sim (own process) ══ MQTT, Modbus TCP, OPC-UA, pty ══▶ dxad run (own process) ══ HTTP ══▶ Receiver
     └─▶ labels.jsonl ────────────────── compared at the end ──────────────────────────────────┘
"""

import asyncio
import importlib.util
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import orjson
from rich.console import Console
from rich.live import Live

from dxad.cli.receiver import Receiver
from dxad.cli.verdict import Verdict, injected, judge, summary
from dxad.cli.view import view
from dxad.client import Client
from dxad.errors import DxadError, ResourceUnavailableError
from dxad.types import Document

__all__ = ["demo"]

FAULTS: Final = {
    "bearing_wear": "",
    "blockage": "",
    "stuck": ":channel=plc.pressure",
    "source_down": ":device=motor",
    "none": "",
}
"""By fault, what the simulator is told beside its hour."""

_ONSET_S: Final = (33.0, 37.0)
"""The fault comes somewhere in here, by the seed; nobody but the simulator's labels tells when."""
_QUIET_S: Final = 60.0
"""How long a demonstration without a fault lasts."""
_DEADLINE_S: Final = 72.0
_START_S: Final = 25.0
_LOOK_S: Final = 0.25
_SIZE_S: Final = 11.0
"""Not before so long after the onset: the fault's size is told for ten seconds after it."""
_AFTERGLOW_S: Final = 3.0


class _DemoError(DxadError):
    """The demonstration could not be given."""


@dataclass(slots=True)
class _Stage:
    """Where it all happens."""

    folder: Path
    receiver: Receiver
    client: Client
    started: float
    status: Document

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def labels(self) -> list[Document]:
        lines = (self.folder / "labels.jsonl").read_bytes().splitlines(keepends=True)
        return [orjson.loads(line) for line in lines if line.endswith(b"\n")]

    def normal(self) -> Document:
        """Mean and standard deviation of each channel in training, once there is a model."""
        manifest = self.folder / "state/models/pump/current/manifest.json"
        found: Document = orjson.loads(manifest.read_bytes())["normal"] if manifest.exists() else {}
        return found


@click.command()
@click.option(
    "--fault", type=click.Choice([*FAULTS]), default="bearing_wear", show_default=True, help="What breaks."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Of the plant's noise and the fault's hour."
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False, resolve_path=True), metavar="DIR",
    help="Leave config, log, labels and database here.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, and nothing else.")
def demo(fault: str, seed: int, keep: Path | None, as_json: bool) -> None:
    """Watch dxad do its job on a simulated pump.

    Starts a simulator that speaks MQTT, Modbus, OPC-UA and serial, a receiver of events, and the daemon with
    config/examples/demo.toml. The daemon learns what is normal for twenty seconds; then something breaks.
    Takes about a minute. Exit status 0 if every source delivered, the fault was found and nothing else was.

    Example: dxad demo --fault blockage --seed 7 --keep /tmp/look
    """
    try:
        verdict = asyncio.run(_demo(fault, seed, keep, as_json))
    except (_DemoError, ResourceUnavailableError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(
            orjson.dumps({"fault": fault, "seed": seed, **verdict.document}, option=orjson.OPT_INDENT_2)
        )
    else:
        Console().print(summary(verdict.document))
    sys.exit(0 if verdict.ok else 1)


async def _demo(fault: str, seed: int, keep: Path | None, as_json: bool) -> Verdict:
    if importlib.util.find_spec("iotcore") is None:
        raise _DemoError("the simulator needs its extra: pip install 'dxad[sim]'")
    started = time.monotonic()
    onset_s = random.Random(seed).uniform(*_ONSET_S)  # noqa: S311 - a time, not a secret
    async with AsyncExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dxad-demo-")))
        sockets = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="dxad-"))
        )  # paths are 107 bytes
        _prepare(folder)
        receiver = await stack.enter_async_context(Receiver())
        breaks = fault if fault == "none" else f"{fault}@{onset_s:.1f}s{FAULTS[fault]}"
        simulator = _simulator(folder, sockets / "sim.sock", "--seed", str(seed), "--fault", breaks)
        endpoints = await stack.enter_async_context(simulator)
        _overlay(folder, sockets / "control.sock", endpoints, receiver.url)
        await stack.enter_async_context(_daemon(folder))
        client = Client(sockets / "control.sock")
        stack.push_async_callback(client.close)
        stage = _Stage(folder, receiver, client, started, {})
        await _ready(stage)
        console = Console(stderr=as_json, quiet=as_json)
        with Live(view(stage.status), console=console, auto_refresh=False, transient=False) as live:
            await _watch(stage, fault, live)
        return judge(
            wanted=fault,
            status=stage.status,
            opened=receiver.incidents("opened"),
            delivered=len(receiver.events),
            fault=injected(stage.labels(), stage.normal()),
            duration_s=stage.elapsed_s,
        )


def _prepare(folder: Path) -> None:
    """Make room for a run; what an earlier one left goes, anything else stays."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "demo.toml").exists():
        raise _DemoError(f"{folder} is not empty and holds no earlier demo; choose another folder")
    try:
        (folder / "conf.d").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _DemoError(f"{folder}: {error.strerror}") from error
    for old in ("labels.jsonl", "dxad.log"):
        (folder / old).unlink(missing_ok=True)
    shutil.rmtree(folder / "state", ignore_errors=True)
    shutil.copyfile(_example("demo.toml"), folder / "demo.toml")


def _example(name: str) -> Path:
    """The shipped example: beside the package when installed, in `config/` of a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "_config", package.parent / "config"):
        if (folder / "examples" / name).exists():
            return folder / "examples" / name
    raise _DemoError(f"the example {name} is not installed with this package")


def _overlay(folder: Path, control: Path, endpoints: Document, url: str) -> None:
    """What differs from the example here and now: where things are."""
    text = f"""\
state_dir = "{folder}/state"
control.socket = "{control}"
sources.motor.url = "{endpoints["motor"]}"
sources.plc.url = "{endpoints["plc"]}"
sources.drive.url = "{endpoints["drive"]}"
sources.vib.port = "{endpoints["vib"]}"
sinks.reasoning.url = "{url}"
"""
    (folder / "conf.d" / "endpoints.toml").write_text(text)


@asynccontextmanager
async def _simulator(folder: Path, control: Path, *options: str) -> AsyncIterator[Document]:
    """The simulator, until the block is left; yields its endpoints."""
    command = [
        sys.executable, "-m", "hw_sim", "run", "--json", "--until-stdin-closes", *options,
        "--labels", str(folder / "labels.jsonl"),
        "--any-port", "--links", str(folder), "--control", str(control),
    ]  # fmt: skip
    with (folder / "hw_sim.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    async with _ended(child):
        assert child.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                line = await child.stdout.readline()
        except TimeoutError as error:
            raise _DemoError(f"the simulator is not up after {_START_S:g} s") from error
        if not line:
            raise _DemoError(f"the simulator did not start:\n{(folder / 'hw_sim.log').read_text().strip()}")
        endpoints: Document = orjson.loads(line)
        yield endpoints


@asynccontextmanager
async def _daemon(folder: Path) -> AsyncIterator[None]:
    """The daemon, until the block is left."""
    with (folder / "dxad.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dxad", "run", "-c", str(folder / "demo.toml"),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    async with _ended(child):
        yield


@asynccontextmanager
async def _ended(child: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """End a child of ours when the block is left: politely, then not."""
    try:
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        try:
            async with asyncio.timeout(6.0):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
        if child.stdin is not None:
            child.stdin.close()


async def _ready(stage: _Stage) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            stage.status = await stage.client.status()
        except ResourceUnavailableError as error:
            if time.monotonic() > deadline:
                log = (stage.folder / "dxad.log").read_text().strip()
                raise _DemoError(f"the daemon does not answer: {error}\n{log}") from error
            await asyncio.sleep(_LOOK_S)
        else:
            return


async def _watch(stage: _Stage, fault: str, live: Live) -> None:
    """Show what happens until there is nothing more to see."""
    found_at: float | None = None
    while stage.elapsed_s < _DEADLINE_S:
        stage.status = await stage.client.status()
        live.update(view(stage.status), refresh=True)
        begun = injected(stage.labels(), {})
        if fault == "none" and stage.elapsed_s > _QUIET_S:
            return
        if begun is not None and found_at is None and stage.receiver.incidents("opened"):
            found_at = stage.elapsed_s
        since_onset_s = 0.0 if begun is None else time.time() - begun.onset_utc_s
        if found_at is not None and stage.elapsed_s > found_at + _AFTERGLOW_S and since_onset_s > _SIZE_S:
            return
        await asyncio.sleep(_LOOK_S)
