"""Records, and how to look into the outbox that holds them."""

import asyncio
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dxad.outbox import Outbox
from dxad.runtime.health import Health
from dxad.types import Lane, Record
from tests.patience import PATIENCE_S

ALL = frozenset(Lane)
MIB = 2**20


def record(id_: str, lane: Lane = Lane.CRITICAL, size: int = 20) -> Record:
    return Record(id_, lane, id_.encode().ljust(size, b"."))


def ids(records: list[Record]) -> list[str]:
    return [each.id for each in records]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.002)


def sql(path: Path, statement: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


async def pragma(box: Outbox, text: str) -> list[tuple]:
    """Ask SQLite something on the outbox's own connection."""
    answer, _ = await box._in_thread(lambda: box._store._connection.execute(f"PRAGMA {text}").fetchall())
    return answer


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


async def fill(box: Outbox, name: str, lane: Lane, n: int) -> None:
    """Append records of a kilobyte, 20 to a commit."""
    for first in range(0, n, 20):
        await asyncio.gather(
            *(box.append(record(f"{name}{k}", lane, 1000)) for k in range(first, min(n, first + 20)))
        )


def codes(health: Health) -> set[str]:
    return {each.code for each in health.active}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` fail with EFBIG, in any file: the nearest thing to a broken disk without root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
