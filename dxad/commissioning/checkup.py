"""What a check-up is made of: checks side by side, each within its time.

    the machine ─┐
    files       ─┼─▶ Finding: ok, warning or failure, in words, with how to mend it
    endpoints   ─┘

Nothing is changed, and nothing stays behind.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Check", "Finding", "State", "examine", "failed", "fine", "warned"]

State = Literal["ok", "warn", "fail"]

_ORDER: Final[dict[State, int]] = {"fail": 0, "warn": 1, "ok": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found."""

    check: str
    """Of which kind: source, secret, clock …"""
    subject: str
    """What was looked at."""
    state: State
    found: str
    mend: str = ""
    """What to do about it."""


def fine(check: str, subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, subject, "ok", found)


def warned(check: str, subject: str, found: str, mend: str) -> Finding:
    """It runs, and something is wrong."""
    return Finding(check, subject, "warn", found, mend)


def failed(check: str, subject: str, found: str, mend: str) -> Finding:
    """It cannot run so."""
    return Finding(check, subject, "fail", found, mend)


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at."""

    kind: str
    subject: str
    look: Callable[[], Awaitable[Iterable[Finding]]]
    within_s: float = 5.0


async def examine(checks: Iterable[Check], *, done: Callable[[Check], None]) -> list[Finding]:
    """Look at everything at once; `done` is called as each ends. What takes too long is a failure."""
    found = await asyncio.gather(*(_one(each, done) for each in checks))
    every = [finding for findings in found for finding in findings]
    return sorted(every, key=lambda each: _ORDER[each.state])


async def _one(check: Check, done: Callable[[Check], None]) -> list[Finding]:
    try:
        async with asyncio.timeout(check.within_s):
            found = list(await check.look())
    except TimeoutError:
        told = f"no end within {check.within_s:g} s"
        found = [failed(check.kind, check.subject, told, "see whether the disk or the network hangs")]
    except PermissionError as error:
        told = f"this user may not look at it: {error.filename}"
        found = [warned(check.kind, check.subject, told, "run doctor as root, or as the user dxad")]
    done(check)
    return found
