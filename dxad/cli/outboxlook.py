"""The two ways to look at an outbox: by the daemon's socket, or, while no daemon runs, at its file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from dxad.client import SyncClient
from dxad.errors import ConfigError, RequestRefusedError, ResourceUnavailableError
from dxad.moment import moment
from dxad.outbox.inspection import Inspection, LetterWanted, Wanted
from dxad.outbox.offline import looking, saving
from dxad.selection import Selection
from dxad.types import Document

__all__ = ["Asked", "Look", "look"]


_OR_ELSE: Final = (
    "to read the file of a daemon that does not run, name its configuration (-c) or the file itself (--file)"
)


class Asked(dict[str, str | None]):
    """What records are asked for: `lane`, `type`, `since`, `until`, `sink`, as they were typed."""


class Look(Protocol):
    """Answers as the routes of the outbox do."""

    where: str
    """What is looked at, in words."""
    damaged: int
    """How much of a damaged file could not be read, if that was looked for."""

    def overview(self) -> Document:
        """Everything in numbers; without a daemon, only `overview`."""

    def page(self, asked: Asked, *, after: int, limit: int, whole: bool) -> Document:
        """Some records: `records`, `next`, `damaged`."""

    def record(self, id_: str) -> Document:
        """One event."""

    def letters(
        self, *, after: int, limit: int, sink: str | None, reason: str | None, whole: bool
    ) -> Document:
        """Some dead letters: `letters`, `next`."""


class _Daemon:
    def __init__(self, client: SyncClient) -> None:
        self._client = client
        self.where = f"the daemon at {client.path}"
        self.damaged = 0

    def overview(self) -> Document:
        return self._client.run(lambda client: client.outbox.overview())

    def page(self, asked: Asked, *, after: int, limit: int, whole: bool) -> Document:
        return self._client.run(
            lambda client: client.outbox.page(after=after, limit=limit, whole=whole, **asked)
        )

    def record(self, id_: str) -> Document:
        return self._client.run(lambda client: client.outbox.record(id_))

    def letters(
        self, *, after: int, limit: int, sink: str | None, reason: str | None, whole: bool
    ) -> Document:
        return self._client.run(
            lambda client: client.outbox.letters(
                after=after, limit=limit, sink=sink, reason=reason, whole=whole
            )
        )


class _File:
    def __init__(self, path: Path, inspection: Inspection, *, instead: bool, damaged: int = 0) -> None:
        """Look at the file at `path`, perhaps `instead` of a daemon that does not answer."""
        self._inspection = inspection
        self.damaged = damaged
        self.where = f"the file {path}" + ("; no daemon answers" if instead else "")

    def overview(self) -> Document:
        return {"overview": self._inspection.overview()}

    def page(self, asked: Asked, *, after: int, limit: int, whole: bool) -> Document:
        wanted = Wanted.of(
            lanes=[each for each in (asked.get("lane"),) if each],
            selection=Selection(types=tuple(each for each in (asked.get("type"),) if each)),
            since=_moment(asked.get("since"), "--since"),
            until=_moment(asked.get("until"), "--until"),
            sink=asked.get("sink") or "",
            now_utc=time.time_ns(),
        )
        page = self._inspection.page(wanted, after=after, limit=limit, whole=whole)
        return {"records": page.found, "next": page.next, "damaged": page.damaged}

    def record(self, id_: str) -> Document:
        found = self._inspection.record(id_)
        if found is None:
            raise RequestRefusedError(404, f"no record {id_!r} in {self.where}")
        return found

    def letters(
        self, *, after: int, limit: int, sink: str | None, reason: str | None, whole: bool
    ) -> Document:
        wanted = LetterWanted(sink=sink, reason=reason or "")
        found, following = self._inspection.letters(wanted, after=after, limit=limit, whole=whole)
        return {"letters": found, "next": following}


@contextmanager
def look(socket: Path, *, file: Path | None, of_config: Path | None, save: bool = False) -> Iterator[Look]:
    """Look at `file` if it is given; else ask the daemon, or read `of_config`, its file, if it does not run.

    Of a damaged file, with `save`, what can be read of it.

    Raises:
        ResourceUnavailableError: there is no daemon, and no file was named.
        ConfigError: the file cannot be read.
    """
    if file is None and (client := _answering(socket, or_else=of_config is None)) is not None:
        yield _Daemon(client)
        return
    path = file or of_config
    assert path is not None
    if save:
        with saving(path) as (inspection, damaged):
            yield _File(path, inspection, instead=file is None, damaged=damaged)
        return
    with looking(path) as inspection:
        yield _File(path, inspection, instead=file is None)


def _answering(socket: Path, *, or_else: bool) -> SyncClient | None:
    """A client of the daemon; None if there is none, and something else to look at."""
    client = SyncClient(socket)
    try:
        client.status()
    except RequestRefusedError:
        raise
    except ResourceUnavailableError as error:
        if or_else:
            raise ResourceUnavailableError(f"{error}\n{_OR_ELSE}") from error
        return None
    return client


def _moment(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return moment(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
