"""Whether the outbox's file is one, and reads; it is never written."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dxad.commissioning.checkup import Finding, failed, fine, warned
from dxad.errors import ConfigError
from dxad.outbox import remains
from dxad.outbox.offline import looking

__all__ = ["outbox"]

_ELSEWHERE: Final = "move it away, or set another path in [outbox]"
_DAMAGED: Final = "start dxad: it sets the file aside, and takes over what can be read"


def outbox(path: Path) -> Iterable[Finding]:
    """The file at `path`, and what was set aside of it and not taken over yet."""
    if path.exists():
        try:
            with looking(path) as inspection:
                told = inspection.overview()
        except ConfigError as error:
            mend = _ELSEWHERE if "no outbox" in str(error) else _DAMAGED
            yield failed("outbox", str(path), str(error).removeprefix(f"{path}: "), mend)
        else:
            stored = sum(each["stored"] for each in told["lanes"].values())
            letters = sum(each["letters"] for each in told["dead_letters"])
            found = f"{stored:,} events stored, {letters:,} dead letters"
            yield (
                fine("outbox", str(path), found)
                if not letters
                else warned("outbox", str(path), found, "dxad outbox dead-letter list says why")
            )
    else:
        yield fine("outbox", str(path), "is not there yet: dxad makes it")
    for each in remains.left(path):
        yield warned("outbox", str(each), "was damaged", "start dxad: it takes over what can be read")
