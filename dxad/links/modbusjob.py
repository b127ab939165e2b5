"""One question on its way over a Modbus link, and what its answer means."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from dxad.errors import NotConnected
from dxad.links.modbusframe import Question
from dxad.types import Reason

__all__ = ["EXCEPTION", "NOT_THERE", "Answer", "Job", "meaning"]

EXCEPTION: Final = 0x80
"""Added to the function by which an answer refuses."""
_EXCEPTIONS: Final = {
    1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure",
    5: "acknowledge", 6: "device busy", 7: "refused", 8: "memory parity error",
    10: "gateway path unavailable", 11: "gateway target does not respond",
}  # fmt: skip
"""Modbus Application Protocol V1.1b3, 7; 7 is of older editions, 9 was never defined."""
_REASONS: Final = {code: Reason(100 + code) for code in range(1, 12)}
NOT_THERE: Final = frozenset({2, 3})
"""Exceptions by which a device says that it does not have, or does not give, so much."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device said to one question."""

    wire: bytes = b""
    """The data as it came: two bytes per register; bits eight to a byte, the first lowest."""
    reason: Reason = Reason.NONE
    """Why there is nothing."""
    detail: str = ""
    code: int = 0
    """The exception, 1 to 255; 0 where it is none."""
    lost: bool = False
    """The connection may have lost its place in the stream of bytes: only a new one finds it again."""

    @property
    def silent(self) -> bool:
        """Whether the device is as good as not connected."""
        silent = {Reason.TIMEOUT, Reason.MODBUS_GATEWAY_PATH, Reason.MODBUS_GATEWAY_TARGET}
        return self.lost or self.reason in silent


@dataclass(slots=True, eq=False)
class Job:
    """A question, as it is wanted and as it is sent."""

    asked: Question
    timeout_s: float
    more: int
    """Addresses behind it that may be read along."""
    done: asyncio.Future[Answer] | None = None
    """None where it serves as a proof alone."""
    before: "Job | None" = None
    """Of a proof: what is to be asked when it has come."""
    sent: Question = field(init=False)
    sent_at: float = 0.0
    came_at: float = 0.0
    transaction: int = 0
    pdu: bytes = b""
    """What came, while it is waited whether more comes."""
    kept_until: float = 0.0
    doubled: bool = False
    """Something else came to it, too."""
    idle_until: float = 0.0
    """So long its slave is asked nothing more: with its answer, all before may be proved."""
    proof_until: float = 0.0
    """That takes so long; 0 where nothing is to be proved, or others want the bus."""
    alone: bool = True
    """Its answer is told by its shape from those of late."""
    garbled: bool = False
    """It came, and its checksum is wrong."""

    def __post_init__(self) -> None:
        self.sent = self.asked

    def afresh(self) -> "Job":
        """The same, before it was sent."""
        return Job(self.asked, self.timeout_s, self.more, self.done, self.before, self.idle_until)

    @property
    def took_s(self) -> float:
        """How long the answer took."""
        return self.came_at - self.sent_at

    @property
    def came(self) -> bool:
        """Whether its answer is there."""
        return bool(self.pdu) or self.garbled

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for its answer."""
        return self.done is not None and not self.done.done()

    def settle(self, result: Answer | NotConnected) -> None:
        """Tell whoever waits for it, or for what was to be asked after it."""
        if self.before is not None:
            self.before.settle(result)
        if self.done is None or self.done.done():
            return
        if isinstance(result, NotConnected):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


def meaning(job: Job, pdu: bytes) -> Answer:
    """What an answer says to what was asked."""
    sent = job.sent
    if pdu[0] == sent.function | EXCEPTION:
        code = pdu[1]
        detail = f"exception {code}" + (f", {_EXCEPTIONS[code]}" if code in _EXCEPTIONS else "")
        return Answer(reason=_REASONS.get(code, Reason.DEVICE), detail=detail, code=code)
    if pdu[0] != sent.function:
        return Answer(reason=Reason.UNFITTING, detail=f"an answer to function {pdu[0] & ~EXCEPTION}")
    if len(pdu) != sent.size + 2:
        return Answer(reason=Reason.UNFITTING, detail=f"an answer of {len(pdu) - 2} bytes")
    return Answer(pdu[2 : 2 + job.asked.size])
