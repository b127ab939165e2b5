"""Events of the outbox in a file of their own."""

import csv
import io
import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Final

import orjson
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dxad.cli.cells import count
from dxad.types import Document

__all__ = ["Export"]

_COLUMNS: Final = ("seq", "lane", "id", "type", "subject", "time", "data")
_LETTER_COLUMNS: Final = ("number", "at", "sink", "attempts", "reason", *_COLUMNS[1:])


class Export:
    """Writes pages of records; the file is there whole or not at all."""

    def __init__(self, output: Path, format_: str, *, dead_letters: bool) -> None:
        self._output = output
        self._csv = format_ == "csv"
        self._columns = _LETTER_COLUMNS if dead_letters else _COLUMNS
        self._dead_letters = dead_letters
        self._written = self._damaged = 0

    @property
    def told(self) -> str:
        """What was done, in words."""
        noun = "dead letter" if self._dead_letters else "event"
        damaged = f"; damaged and passed over: {self._damaged:,}" if self._damaged else ""
        return f"{count(self._written, noun)} written to {self._output}{damaged}"

    def write(self, pages: Iterable[tuple[list[Document], int]]) -> None:
        """Write them all, and say on the way how many there are, if somebody looks on.

        Raises:
            OSError: the file cannot be written.
        """
        with ExitStack() as stack:
            if str(self._output) == "-":
                self._write(pages, sys.stdout.buffer)
                sys.stdout.flush()
                return
            folder = self._output.absolute().parent
            file = stack.enter_context(NamedTemporaryFile(dir=folder, prefix=".dxad-", delete=False))
            stack.callback(Path(file.name).unlink, missing_ok=True)
            self._write(pages, file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(self._output)

    def _write(self, pages: Iterable[tuple[list[Document], int]], file: IO[bytes]) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.completed:,} written"), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=None)
            if self._csv:
                file.write(self._row(self._columns))
            for records, damaged in pages:
                self._damaged += damaged
                for each in records:
                    file.write(self._row(self._cells(each)) if self._csv else self._line(each))
                self._written += len(records)
                progress.update(task, completed=self._written)

    def _line(self, record: Document) -> bytes:
        if self._dead_letters:
            return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        return orjson.dumps(record["event"], option=orjson.OPT_APPEND_NEWLINE)

    def _cells(self, record: Document) -> list[str]:
        told = {**record["event"], **record}
        told["data"] = orjson.dumps(record["event"].get("data")).decode()
        return [str(told.get(name, "")) for name in self._columns]

    @staticmethod
    def _row(cells: Iterable[str]) -> bytes:
        """RFC 4180."""
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        return text.getvalue().encode()
