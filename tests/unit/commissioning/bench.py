"""A command of the first hour, while what it looks at runs in the test."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from dxad.__main__ import main
from dxad.config import Config, load


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


async def dxad(*arguments: object, environment: dict[str, str] | None = None) -> Done:
    """Run `dxad ARGUMENTS` on a thread, with a loop of its own."""
    runner = CliRunner()
    with ThreadPoolExecutor(1) as thread:
        done = await asyncio.get_running_loop().run_in_executor(
            thread, lambda: runner.invoke(main, [str(each) for each in arguments], env=environment)
        )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def accepted(fragment: str, folder: Path) -> Config:
    """What `dxad check` makes of a fragment alone."""
    path = folder / "fragment.toml"
    path.write_text(fragment)
    return load(path)


class Silent:
    """A watcher that remembers what was seen."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def doing(self, what: str) -> None:
        assert what

    def seen(self, what: str) -> None:
        self.lines.append(what)
