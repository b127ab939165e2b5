"""Answers of one slave that come more than once, on a line where nothing says which question an answer is to.

A twin that comes while its question is the only one of its shape (function and size of the answer) is told by
that. So questions are sent in another shape than those of late, where registers may be read along; where none
is left, they are not told apart, and time must do:

    proof       the last answer of a poll is waited behind for as long as the slave takes for one, where the
                line has nothing else to do; and so is any that came far too soon. Had a twin been taken for
                an answer, all after it would have been taken for the next question's, and the last would
                come now: the poll has one too many, and is void
    wait        where twins have come, a question waits until those of the answers that look like its own have
                come, or had time to
"""

from collections.abc import Sequence
from typing import Final

from dxad.links.modbusframe import Question

__all__ = ["Shape", "Twins", "shape_of"]

Shape = tuple[int, int]
"""Of an answer: function, size."""

_APART_S: Final = 0.5
"""Questions of one shape are so far apart, where they may be, while no twin was seen."""
_WITHIN_LEAST_S: Final = 0.1
"""A twin is waited for so long, once one was seen; twice as long each time that was too short."""
_MARGIN: Final = 1.25
"""So many times later than was measured."""
_WITHIN_MOST_S: Final = 3.2
_REMEMBERED_S: Final = 600.0
"""So long it counts against a slave."""
_SHAPES_MOST: Final = 32
"""Shapes that are remembered."""


def shape_of(asked: Question) -> Shape:
    """What an answer to it looks like."""
    return asked.function, asked.size


class Twins:
    """What one slave was asked of late, and whether its answers come again. All times are the loop's."""

    def __init__(self) -> None:
        self.seen = 0
        """Answers that came again."""
        self.mixed = 0
        """Of them, those that another question may have been answered with."""
        self.within_s = 0.0
        """How long after an answer its twin may come; 0 while there are none."""
        self._until = 0.0
        self._sent: dict[Shape, tuple[Question, float]] = {}
        """The newest question of each shape, and when it was sent; the newest of all is the last."""
        self.unproved = False
        """Questions were not told apart since the last one that was waited behind."""
        self._refused_at = -_REMEMBERED_S
        self._answers: dict[Shape, tuple[bytes, float]] = {}
        """What was said last in each shape, and when."""

    def known(self, now: float) -> bool:
        """Whether answers have come again, in the last ten minutes."""
        if self.within_s and now >= self._until:
            self.within_s = 0.0
        return self.within_s > 0

    def told(self, now: float) -> str:
        """What an operator should know of it; or nothing."""
        if not self.known(now):
            return ""
        return (
            f"answers twice, or unasked ({self.seen} times): where answers look alike, a question waits "
            f"up to {self.within_s:.2g} s"
        )

    def pick(self, fits: Sequence[Question], now: float) -> tuple[Question, bool]:
        """The first that its shape tells from those of late, or the one longest ago; and whether it does."""
        since = now - self._apart_s
        recent = {shape: at for shape, (_, at) in self._answers.items() if at > since}
        recent |= {shape: at for shape, (_, at) in self._sent.items() if at > since}
        for each in fits:
            if shape_of(each) not in recent:
                return each, True
        self.unproved = True
        return min(fits, key=lambda each: recent[shape_of(each)]), False

    def sent(self, asked: Question, now: float) -> None:
        """It was asked."""
        shape = shape_of(asked)
        self._sent.pop(shape, None)
        self._sent[shape] = asked, now
        if len(self._sent) > _SHAPES_MOST:
            del self._sent[next(iter(self._sent))]

    @property
    def asked(self) -> list[Question]:
        """The questions whose answers may come again, the newest of each shape."""
        return [each for each, _ in self._sent.values()]

    def ready_at(self, asked: Question, now: float) -> float:
        """When to ask what is not told apart: all twins that look like its answer have come."""
        if not self.known(now):
            return now
        _, at = self._answers.get(shape_of(asked), (b"", 0.0))
        return at + self.within_s

    def answered(self, asked: Question, pdu: bytes, now: float) -> None:
        """An answer to it has come, or a refusal, which has no shape."""
        if pdu[0] == asked.function:
            self._answers[shape_of(asked)] = pdu, now

    def refused(self, now: float) -> bool:
        """It was refused, which has no shape; whether it may have been so with another one's twin."""
        soon = now - self._refused_at < self._apart_s
        self._refused_at = now
        return soon or self.known(now)

    def again(self, asked: Question, pdu: bytes, now: float) -> None:
        """An answer has come that looks like one to this, which was answered or given up."""
        first, at = self._answers.get(shape_of(asked), (b"", now - self._apart_s))
        recent = at > now - self._apart_s
        known = self.known(now)
        self.seen += 1
        self._until = now + _REMEMBERED_S
        self.within_s = max(self.within_s, _WITHIN_LEAST_S)
        if pdu[0] != asked.function:
            return
        if pdu == first and recent:
            self.within_s = max(self.within_s, min(_MARGIN * (now - at), _WITHIN_MOST_S))
            self._answers[shape_of(asked)] = pdu, now - self.within_s  # there are no three
        elif recent:
            self.mixed += 1
            self.within_s = min(self.within_s * (2 if known else 1), _WITHIN_MOST_S)

    @property
    def _apart_s(self) -> float:
        """Questions that were sent longer ago are not answered any more."""
        return max(_APART_S, _MARGIN * self.within_s)
