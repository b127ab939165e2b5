"""The trial of a model before it comes near the daemon: in a process of its own, that may well die of it.

    daemon ─ python -m dxad.bundle.trial FOLDER… ─ a fork per folder: read, load, score ─▶ a line of JSON
                                                        └ or it dies (SIGSEGV), hangs, runs out of memory

A damaged file crashes the runtime in one of five cases, and with a single bit flipped it mostly runs and
scores wrongly: hence the golden windows.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import orjson

from dxad import bundle
from dxad.bundle.inference import Scorer, verify
from dxad.bundle.interpreter import Graph, place, runtime
from dxad.bundle.manifest import Manifest
from dxad.errors import ModelError, ModelRefusedError
from dxad.runtime.clock import SystemClock
from dxad.types import F4, Document

__all__ = ["Trial", "ensure_tried", "ensure_tried_now", "try_bundle", "try_bundles_now", "try_file_now"]

Kind = Literal["bundle", "file"]
Steps = Callable[[Path], Iterator[Document]]

_TIMEOUT_S: Final = 20
_CPU_S: Final = 15
_MEMORY_BYTES: Final = 2 * 2**30
_ANSWER_BYTES: Final = 65536
_NICE: Final = 19
_GRACE_S: Final = 10.0
"""For the child to start and to tell what became of the trial."""
_ROUNDS: Final = 5
"""Calls per batch size, of which the fastest counts."""
_DEATHS: Final = {
    signal.SIGSEGV: "the runtime crashed (SIGSEGV) while {phase}: the file is damaged",
    signal.SIGBUS: "the runtime crashed (SIGBUS) while {phase}: the file is damaged",
    signal.SIGFPE: "the runtime crashed (SIGFPE) while {phase}: the file is damaged",
    signal.SIGILL: "the runtime crashed (SIGILL) while {phase}: the file is damaged, or for other processors",
    signal.SIGABRT: "the runtime gave up (SIGABRT) while {phase}: damaged, or too large for the memory",
    signal.SIGALRM: "it took longer than {timeout_s:g} s, {phase}",
    signal.SIGXCPU: "it used more than {cpu_s} s of the processor, {phase}",
    signal.SIGKILL: "it was killed while {phase}: it needs more memory than there is, or time",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    path: Path
    refused: str | None
    """Why it is not used; None: it passed."""
    contents: str = ""
    """sha256 of what was tried: of a bundle's manifest, which holds the model's, or of a bare model."""
    version: str = ""
    rule: str = ""
    runtime: str = ""
    latency_us: dict[int, float] = field(default_factory=dict)
    """By batch size: microseconds per window."""

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return self.refused is None


async def try_bundle(folder: Path, *, timeout_s: float = _TIMEOUT_S) -> Trial:
    """Try a bundle in a child process; whatever it does, an answer comes.

    One that passes is stamped, so that `ensure_tried` and `TFLite.at` know.
    """
    command, keys = _command([folder], timeout_s, "bundle")
    child = await asyncio.create_subprocess_exec(
        *command, **keys, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out = b""
    try:
        async with asyncio.timeout(timeout_s + _GRACE_S):
            out, _ = await child.communicate()
    except TimeoutError:
        pass  # nothing came: told below
    finally:
        if child.returncode is None:
            _kill(child.pid)
            await child.wait()
    return (await asyncio.to_thread(_answers, [folder], out))[0]


def try_bundles_now(folders: Sequence[Path], *, timeout_s: float = _TIMEOUT_S) -> list[Trial]:
    """The same for several bundles, one after the other, and for callers that can wait."""
    return _tried_now(folders, timeout_s, "bundle")


def _tried_now(folders: Sequence[Path], timeout_s: float, kind: Kind) -> list[Trial]:
    import subprocess  # noqa: PLC0415 - the daemon does without

    command, keys = _command(folders, timeout_s, kind)
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        command, **keys, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            out, _ = child.communicate(timeout=len(folders) * timeout_s + _GRACE_S)
        except subprocess.TimeoutExpired:
            _kill(child.pid)
            out, _ = child.communicate()
        except BaseException:
            _kill(child.pid)
            raise
    return _answers(folders, out)


def try_file_now(path: Path) -> Trial:
    """Try a bare `.tflite`: that it loads and runs, since nothing says what it should score."""
    return _tried_now([path], _TIMEOUT_S, "file")[0]


async def ensure_tried(path: Path) -> None:
    """Have the bundle that a configured path means tried, unless it was, here and with this runtime.

    Raises:
        ModelError: there is none, or it did not pass.
    """
    folder = bundle.current(path) or path
    found = await asyncio.to_thread(bundle.read, folder)
    if not bundle.is_tried(folder, found.contents, place()):
        _pass(await try_bundle(folder))


def ensure_tried_now(path: Path) -> None:
    """The same for callers that can wait.

    Raises:
        ModelError: there is none, or it did not pass.
    """
    folder = bundle.current(path) or path
    found = bundle.read(folder)
    if not bundle.is_tried(folder, found.contents, place()):
        _pass(try_bundles_now([folder])[0])


def _pass(trial: Trial) -> None:
    if trial.refused is not None:
        raise ModelRefusedError(trial.refused)


def _command(paths: Sequence[Path], timeout_s: float, kind: Kind) -> tuple[list[str], dict[str, Any]]:
    """How the child is started: a session of its own, so that it can be killed with all it forked."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    env = os.environ | threads | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-B", "-m", "dxad.bundle.trial", kind, str(timeout_s), *map(str, paths)]
    return command, {"env": env, "start_new_session": True}


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _answers(paths: Sequence[Path], out: bytes) -> list[Trial]:
    """What the child told of each, in order; those that passed are stamped."""
    lines = out.splitlines()
    trials = []
    for number, path in enumerate(paths):
        told = _parsed(lines[number]) if number < len(lines) else None
        trial = _trial(path, told) if told else Trial(path, f"{path}: the trial gave no answer")
        if trial.ok and path.suffix != ".tflite":
            bundle.tried(path, trial.contents, place())
        trials.append(trial)
    return trials


def _parsed(line: bytes) -> Document | None:
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) and ("refused" in told or "contents" in told) else None


def _trial(path: Path, told: Document) -> Trial:
    if told.get("refused"):
        return Trial(path, str(told["refused"]))
    latency_us = {int(batch): float(us) for batch, us in told["latency_us"].items()}
    return Trial(path, None, told["contents"], told["version"], told["rule"], told["runtime"], latency_us)


# What follows runs in the child.


def _main() -> int:
    kind, timeout_s, *paths = sys.argv[1:]
    steps = _examined_file if kind == "file" else _examined_bundle
    os.nice(_NICE)
    for path in map(Path, paths):
        sys.stdout.buffer.write(orjson.dumps(_isolated(path, float(timeout_s), steps)) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _isolated(path: Path, timeout_s: float, steps: Steps) -> Document:
    """The answer of a fork that tries this one; what it died of, where it did not come to give one."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            _limit(timeout_s)
            for told in _examined(path, steps):
                os.write(writer, orjson.dumps(told) + b"\n")
        finally:
            os._exit(0)  # whatever it was: what was told so far says where
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor
        lines = pipe.read(_ANSWER_BYTES).splitlines()
    _, status = os.waitpid(pid, 0)
    said = [each for line in lines if (each := _line(line)) is not None]
    last = said[-1] if said else {"phase": "starting"}
    if os.WIFSIGNALED(status):
        return {
            "refused": f"{path}: {_death(os.WTERMSIG(status), str(last.get('phase', 'ending')), timeout_s)}"
        }
    if "phase" in last:
        return {"refused": f"{path}: the trial ended without an answer while {last['phase']}"}
    return last


def _line(line: bytes) -> Document | None:
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def _death(number: int, phase: str, timeout_s: float) -> str:
    text = _DEATHS.get(signal.Signals(number), f"it died of {signal.Signals(number).name} while {{phase}}")
    return text.format(phase=phase, timeout_s=timeout_s, cpu_s=_CPU_S)


def _limit(timeout_s: float) -> None:
    """Bound what the trial may take (setrlimit(2), setitimer(2)); all signals do what they do by default."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 1))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)


def _examined(path: Path, steps: Steps) -> Iterator[Document]:
    """What is being done, step by step, and in the end the answer."""
    try:
        yield from steps(path)
    except MemoryError:
        yield {"refused": f"{path}: it needs more than {_MEMORY_BYTES >> 30} GiB of memory"}
    except ModelError as error:
        text = str(error)
        yield {"refused": text if text.startswith(str(path)) else f"{path}: {text}"}


def _examined_bundle(path: Path) -> Iterator[Document]:
    yield {"phase": "reading it"}
    found = bundle.read(path)
    manifest = found.manifest
    if not manifest.golden_windows:
        raise ModelRefusedError("it has no golden windows, so nothing tells whether it scores as it should")
    yield {"phase": "loading it"}
    scorer = Scorer(manifest, found.blob)
    latency_us: dict[str, float] = {}
    for batch in scorer.graph.sizes:
        yield {"phase": f"scoring {batch} windows"}
        verify(scorer, manifest, batch=batch)
        yield {"phase": f"scoring {batch} random windows"}
        rows = _random_rows(manifest, batch)
        latency_us[str(batch)] = _tried_on(partial(_scored, scorer, rows, batch)) / batch
        verify(scorer, manifest, batch=batch)  # and it is still what it was
    yield {
        "contents": found.contents,
        "version": found.version,
        "rule": manifest.score.rule,
        "runtime": runtime(),
        "latency_us": latency_us,
    }


def _random_rows(manifest: Manifest, batch: int) -> F4:
    """Windows as the golden ones are, by channel, with a cell missing here and there; always the same."""
    rng = np.random.default_rng(batch)
    like = np.asarray(manifest.golden_windows).reshape(-1, len(manifest.channels))
    cells = rng.normal(like.mean(axis=0), like.std(axis=0), (batch * manifest.rows, like.shape[1]))
    cells[rng.random(cells.shape) < 0.05] = np.nan
    return cells.astype(np.float32)


def _scored(scorer: Scorer, rows: F4, batch: int) -> bytes:
    """Raises ModelError: a window that has whole channels has a score that is no number."""
    values, parts = scorer.score(rows, batch, step=scorer.rows)
    whole = ~np.isnan(rows.reshape(batch, -1, scorer.channels)).any(axis=1).all(axis=1)
    if not np.isfinite(values[whole]).all() or (parts is not None and not np.isfinite(parts).all()):
        raise ModelError("the model answers with numbers that are not finite")
    return values.tobytes() + (b"" if parts is None else parts.tobytes())


def _tried_on(call: Callable[[], bytes]) -> float:
    """Microseconds that a call takes; it must answer alike each time.

    Raises:
        ModelError: it does not: it computes with memory that is not its own.
    """
    clock, first, best_ns = SystemClock(), call(), sys.maxsize
    for _ in range(_ROUNDS):
        began = clock.now()
        again = call()
        best_ns = min(best_ns, clock.now() - began)
        if again != first:
            raise ModelError("the model scores the same windows differently each time")
    return best_ns / 1e3


def _examined_file(path: Path) -> Iterator[Document]:
    yield {"phase": "reading it"}
    blob = bundle.read_bare(path)
    yield {"phase": "loading it"}
    graph = Graph(blob)
    latency_us: dict[str, float] = {}
    for batch in graph.sizes:
        yield {"phase": f"scoring {batch} random windows"}
        cells = np.random.default_rng(batch).normal(size=(batch, *graph.input.shape)).astype(np.float32)
        latency_us[str(batch)] = _tried_on(partial(_ran, graph, cells, batch)) / batch
    contents = bundle.hashed(blob)
    yield {
        "contents": contents,
        "version": contents[:12],
        "rule": "",
        "runtime": runtime(),
        "latency_us": latency_us,
    }


def _ran(graph: Graph, cells: F4, batch: int) -> bytes:
    graph.run(cells if graph.input.is_float else graph.input.quantised(cells))
    found = [graph.output(each, batch) for each in graph.outputs]
    if not all(np.isfinite(each).all() for each in found):
        raise ModelError("the model answers with numbers that are not finite")
    return b"".join(each.tobytes() for each in found)


if __name__ == "__main__":
    sys.exit(_main())
