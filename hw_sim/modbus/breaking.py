"""What each fault does to one answer: an effect for each row of the catalogue that is about answers."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hw_sim.fault import Fault, Settings
from hw_sim.modbus.framing import Answer, Framing, Request
from hw_sim.modbus.image import SPACES, Image
from hw_sim.modbus.pdu import EXCEPTION, GATEWAY_TARGET, asked, exception

__all__ = ["EFFECTS", "Break", "Reply"]

_ILLEGAL_ADDRESS: Final = 2
_IDS: Final = 247
_OTHER_TABLE: Final = {1: 2, 2: 1, 3: 4, 4: 3}
_BITS: Final = (1, 2)
_FIRST_DEFINED: Final = -1


@dataclass(slots=True)
class Reply:
    """An answer with all that can be wrong with it."""

    request: Request
    answer: Answer
    image: Image
    """The slave's registers."""
    gateway: bool
    """Whether the slave is behind a gateway, which tells that it does not answer."""
    lost: bool = False
    hangs_up: bool = False
    whole: bool = True
    copies: int = 1
    before: bytes = b""
    after: bytes = b""
    gap_s: float = 0.0
    """Between its two halves; 0 is in one piece."""
    late_s: float = 0.0

    def bytes_of(self, framing: Framing) -> bytes:
        """All that goes over the wire for it."""
        data = framing.framed(self.answer)
        if not self.whole:
            data = data[: len(data) // 2]
        return self.before + data * self.copies + self.after

    @property
    def has_values(self) -> bool:
        """Whether there is a byte count, and data."""
        return asked(self.request.pdu) is not None and not self.answer.pdu[0] & EXCEPTION

    def raises(self, code: int) -> None:
        """Be an exception instead."""
        self.answer.pdu = exception(self.request.pdu[0], code)

    def vanishes(self) -> None:
        """Be what there is of a slave that does not answer."""
        if self.gateway:
            self.raises(GATEWAY_TARGET)
        else:
            self.lost = True


Effect = Callable[[Reply, Settings, random.Random], bool]
"""Changes an answer; false where there is nothing to change."""


class Break:
    """A fault that is on, as far as answers are concerned."""

    def __init__(self, fault: Fault, *, seed: str) -> None:
        self.fault = fault
        self._effect = EFFECTS[fault.kind.short]
        self._every = int(fault.settings.get("every", 1))
        self._random = random.Random(f"{seed}/{fault.name}/{fault.onset_s}")  # noqa: S311 - same seed, same noise
        self._answers = 0

    def apply(self, reply: Reply) -> bool:
        """Break an answer, if it is one of those that are to be broken; whether it has done so."""
        self._answers += 1
        if self._answers % self._every:
            return False
        return self._effect(reply, self.fault.settings, self._random)


def _silence(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.lost = True
    return True


def _dead_slave(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.vanishes()
    return True


def _disconnect(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.lost = reply.hangs_up = True
    return True


def _exception(reply: Reply, settings: Settings, _random: random.Random) -> bool:
    reply.raises(int(settings["code"]))
    return True


def _illegal_address(reply: Reply, settings: Settings, _random: random.Random) -> bool:
    block = asked(reply.request.pdu)
    if block is None:
        return False
    table, first, count = block
    if settings["address"] == _FIRST_DEFINED:
        at_table, address = reply.image.first
        here = table == at_table
    else:
        address = int(settings["address"])
        here = settings["table"] in {"any", SPACES[table]}
    if not here or not first <= address < first + count:
        return False
    reply.raises(_ILLEGAL_ADDRESS)
    return True


def _wrong_id(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.answer.unit = reply.answer.unit % _IDS + 1
    return True


def _wrong_function(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    pdu = reply.answer.pdu
    function = pdu[0] & ~EXCEPTION
    reply.answer.pdu = bytes((_OTHER_TABLE.get(function, function ^ 1) | pdu[0] & EXCEPTION,)) + pdu[1:]
    return True


def _wrong_length(reply: Reply, settings: Settings, _random: random.Random) -> bool:
    if not reply.has_values:
        return False
    pdu, what = reply.answer.pdu, settings["what"]
    if what == "header" and reply.gateway:
        reply.answer.longer = 2
    elif what == "data":
        fewer = 1 if pdu[0] in _BITS else 2
        reply.answer.pdu = bytes((pdu[0], pdu[1] - fewer)) + pdu[2:-fewer]
    else:
        reply.answer.pdu = bytes((pdu[0], pdu[1] + 2)) + pdu[2:]
    return True


def _wrong_transaction(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.answer.transaction = reply.answer.transaction - 1 & 0xFFFF
    return reply.gateway


def _crc(reply: Reply, _settings: Settings, rng: random.Random) -> bool:
    reply.answer.flipped = rng.randrange(1, 0x100)
    return not reply.gateway


def _half_frame(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.whole = False
    return True


def _duplicate(reply: Reply, _settings: Settings, _random: random.Random) -> bool:
    reply.copies = 2
    return True


def _garbage(reply: Reply, settings: Settings, rng: random.Random) -> bool:
    noise = rng.randbytes(int(settings["bytes"]))
    if settings["where"] == "before":
        reply.before += noise
    else:
        reply.after += noise
    return True


def _split(reply: Reply, settings: Settings, _random: random.Random) -> bool:
    reply.gap_s = float(settings["gap"])
    return True


def _late(reply: Reply, settings: Settings, _random: random.Random) -> bool:
    reply.late_s += float(settings["by"])
    return True


EFFECTS: Final[Mapping[str, Effect]] = {
    "exception": _exception,
    "illegal_address": _illegal_address,
    "wrong_id": _wrong_id,
    "wrong_function": _wrong_function,
    "wrong_length": _wrong_length,
    "wrong_transaction": _wrong_transaction,
    "crc": _crc,
    "half_frame": _half_frame,
    "duplicate": _duplicate,
    "garbage": _garbage,
    "split": _split,
    "late": _late,
    "dead_slave": _dead_slave,
    "silence": _silence,
    "disconnect": _disconnect,
}
"""In the order in which they work when several are on."""
