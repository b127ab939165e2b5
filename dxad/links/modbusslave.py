"""What a Modbus link knows of one slave: whether it is alive, how fast it answers, and what it may yet say.

RTU and ASCII have no transaction id. An answer that was not in time may come at any later moment, and looks
like one to whatever is asked then. Three things keep it from being taken for another's:

    rest        after a silence, the slave is not asked for a while
    length      while an answer may still come, no question has an answer of its length: some registers more
                are read along, where they may be
    proof       where they may not be, a question of another function comes first; a slave answers in turn, so
                its answer proves that all before it have come, or never will
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dxad.errors import NotConnected
from dxad.links.modbusframe import Question, Space, longer, question
from dxad.types import Reason

__all__ = ["Answer", "Job", "Slave"]

_MISSES: Final = 3
"""So many silences in a row, and a slave is asked seldom."""
_SHARE: Final = 10
"""A silent slave may take one part in so many of the bus's time."""
_FORGIVEN_S: Final = 0.15
"""Of the bus's time, which a first silence may cost the others without a rest."""
_AGAIN_LEAST_S: Final = 1.0
_AGAIN_MOST_S: Final = 30.0
_PATIENCE_LEAST_S: Final = 0.05
_PATIENCE_FIRST_S: Final = 0.2
_PATIENCE: Final = 3
"""Others are not kept waiting when an answer takes so many times longer than the slave's longest of late."""
_FORGETS: Final = 0.98
"""Per answer, of how long the longest took."""
_LATELY: Final = 8
"""Questions that are told apart by their lengths from one whose answers come again, long after the first."""
_APART: Final = 3
"""The same, while no answers have come that nobody waited for."""
_PROOF_MOST: Final = 122
"""Addresses of a proof; each eight more make it another."""
_DOUBT_S: Final = 20.0
"""So long after its question an answer may still come."""
_REMEMBERED_S: Final = 600.0
"""How long it counts against a slave that its answers came twice, or in another order."""
_STRAY_S: Final = 0.1
"""An answer that comes again does so within this, where nothing but time can tell it."""
_EXACT_S: Final = 3600.0
"""So long it is remembered that nothing more may be read along."""
_SUSPECTS: Final = 2
"""So many silences to a question that reads along what it never did before, and it is asked without."""
_REMEMBERED: Final = 1024
"""Questions of which it is known whether more may be read along."""

_TRAFFIC: Final = ("asked", "answered", "refused", "unfitting", "silent", "lost", "late")
_EXCEPTION: Final = 0x80

_Key = tuple[int, int, int]
"""Of a question: function, first, count."""
_Shape = tuple[int, int]
"""Of an answer: function, size."""


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
    garbled: bool = False
    """It came, and its checksum is wrong."""

    def __post_init__(self) -> None:
        self.sent = self.asked

    def afresh(self) -> "Job":
        """The same, before it was sent."""
        return Job(self.asked, self.timeout_s, self.more, self.done, self.before)

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


@dataclass(slots=True)
class _Doubt:
    """Answers of one shape that may yet come."""

    job: Job
    count: int
    until: float


def _shape(asked: Question) -> _Shape:
    return asked.function, asked.size


def _key(asked: Question) -> _Key:
    return asked.function, asked.first, asked.count


class Slave:
    """One id on a link. All times are the loop's."""

    def __init__(self) -> None:
        self.traffic = dict.fromkeys(_TRAFFIC, 0)
        """Questions that were `asked`, and what became of each: `answered` with values, `refused` by an
        exception, `unfitting` where what came was no answer to it, `silent`, or `lost` with the connection;
        and answers that were `late`: to questions that were given up before."""
        self.jobs: deque[Job] = deque()
        self.misses = 0
        self.ask_at = 0.0
        """Before this, it is not asked: it was silent too often."""
        self.quiet_until = 0.0
        """Before this, it is left alone: an answer may be on its way."""
        self._longest_s = 0.0
        """Of its answers of late; 0 before the first."""
        self._patience_least_s = _PATIENCE_LEAST_S
        self._doubts: dict[_Shape, _Doubt] = {}
        self._wary: dict[_Shape, float] = {}
        """Shapes of late answers that a proof has ruled out, and how long a second one is looked for."""
        self._lately: deque[Question] = deque(maxlen=_LATELY)
        """What was sent."""
        self._strays_until = 0.0
        """Answers have come that nobody waited for."""
        self._answered_to = 0.0
        """When the newest question was sent that has been answered."""
        self._unordered_until = 0.0
        """Its answers have come in another order than the questions: a proof proves nothing."""
        self._exact: dict[_Key, float] = {}
        """Questions that are not answered when more is read along, and how long to believe it."""
        self._along: dict[_Key, int] = {}
        """Questions with which more was read along: -1 where it was answered, else silences."""

    def patience_s(self, job: Job, line_s: float | None) -> float:
        """How long others wait for an answer.

        Args:
            job: the question.
            line_s: seconds that it takes on the line alone; None over TCP, where two answers cannot collide.
        """
        least_s = self._patience_least_s
        if line_s is not None and not self._longest_s and not self.misses:
            least_s = max(least_s, _PATIENCE_FIRST_S)  # nobody knows yet how slow it is
        patience_s = max(_PATIENCE * self._longest_s, least_s) + (line_s or 0.0)
        return min(job.timeout_s, patience_s)

    def asked(self, job: Job, now: float) -> None:
        """A question is sent."""
        job.sent_at = now
        self.traffic["asked"] += 1

    def told(self, job: Job, pdu: bytes) -> None:
        """It is answered, in whatever way."""
        sent = job.sent
        if pdu[0] == sent.function | _EXCEPTION:
            self.traffic["refused"] += 1
        else:
            fits = pdu[0] == sent.function and len(pdu) == sent.size + 2
            self.traffic["answered" if fits else "unfitting"] += 1

    def clashed(self) -> None:
        """While its answer was not waited for, another's was spoilt: wait longer."""
        self._patience_least_s *= 2

    def missed(self, now: float, cost_s: float, *, shared: bool) -> None:
        """It was silent, which has cost the bus so long; `shared` if others wanted it."""
        self.misses += 1
        rest_s = _SHARE * cost_s
        if self.misses >= _MISSES:
            wait_s = max(_AGAIN_LEAST_S, rest_s)
            doubled = wait_s * 2.0 ** min(self.misses - _MISSES, 10)
            self.ask_at = now + min(doubled, max(wait_s, _AGAIN_MOST_S))
        elif shared and (self.misses > 1 or cost_s > _FORGIVEN_S):
            self.ask_at = now + rest_s

    def answered(self, job: Job | None = None) -> None:
        """It is alive: it has answered this."""
        self.misses, self.ask_at = 0, 0.0
        if job is not None:
            self._answered_to = max(self._answered_to, job.sent_at)
            self._longest_s = max(job.took_s, _FORGETS * self._longest_s)

    def hold_s(self, job: Job, gap_s: float, now: float) -> float:
        """How long an answer is kept to see whether another one comes to the same question."""
        if now < self._wary.get(_shape(job.sent), 0.0):
            return max(gap_s, min(job.timeout_s, 2 * self._longest_s))
        if now < self._strays_until and self._more(job, now) == 0:
            return max(gap_s, _STRAY_S)
        return gap_s

    def late(self) -> list[Question]:
        """The questions whose answers may yet come, or come once more."""
        awaited = [each.job.sent for each in self._doubts.values()]
        return awaited + [each for each in self._lately if _shape(each) not in self._doubts]

    def doubt(self, job: Job, now: float, quiet_s: float, *, for_s: float = _DOUBT_S) -> None:
        """An answer to what was sent may yet come."""
        sent = job.sent
        there = self._doubts.get(_shape(sent))
        self._doubts[_shape(sent)] = _Doubt(job, 1 + (0 if there is None else there.count), now + for_s)
        self.quiet_until = max(self.quiet_until, now + quiet_s)

    def refused(self, job: Job, now: float) -> None:
        """It was answered by a refusal, which has no length: it may be one to an earlier question."""
        if any(function == job.sent.function for function, _ in self._doubts):
            self.doubt(job, now, 0.0)

    def arrived(self, late: Question, now: float, *, refused: bool) -> None:
        """An answer that was late has come; with the last one the rest is over."""
        self.traffic["late"] += 1
        if refused and len([1 for function, _ in self._doubts if function == late.function]) > 1:
            return  # nobody knows to which
        doubt = self._doubts.get(_shape(late))
        if doubt is None:
            self._strays_until = now + _REMEMBERED_S
            if _shape(late) in self._wary:
                self._unordered_until = now + _REMEMBERED_S
            return
        if doubt.job.sent_at < self._answered_to:
            self._unordered_until = now + _REMEMBERED_S
        doubt.count -= 1
        if doubt.job.sent is not doubt.job.asked:
            self.along(doubt.job, now, answered=True)
        if not doubt.count:
            del self._doubts[_shape(late)]
        self.ask_at = 0.0
        if not self._doubts:
            self.quiet_until = min(self.quiet_until, now)

    def next_on_line(self, job: Job, now: float) -> Job | None:
        """What to send for it, so that no answer but its own can be taken for its own: it or a proof.

        Returns None where there is nothing but to wait: until `ask_at`, or a late answer.
        """
        for shape in [shape for shape, each in self._doubts.items() if each.until <= now]:
            del self._doubts[shape]
        for shape in [shape for shape, until in self._wary.items() if until <= now]:
            del self._wary[shape]
        others = [_shape(each) for each in self._lately if _key(each) != _key(job.asked)]
        lately = set(others if now < self._strays_until else others[-_APART:])
        fits = [each for each in longer(job.asked, self._more(job, now)) if _shape(each) not in self._doubts]
        if not fits:
            proof = self._proof(job) if now >= self._unordered_until else None
            if proof is None:
                self.ask_at = max(self.ask_at, min(each.until for each in self._doubts.values()))
            return proof
        self._send(job, next((each for each in fits if _shape(each) not in lately), fits[0]))
        return job

    def _send(self, job: Job, asked: Question) -> None:
        job.sent = asked
        self._lately.append(asked)

    def _more(self, job: Job, now: float) -> int:
        return job.more if self._exact.get(_key(job.asked), 0.0) <= now else 0

    def _proof(self, job: Job) -> Job | None:
        """A question before it, whose answer can be taken for no other; None where there is none left."""
        functions = {function for function, _ in self._doubts}
        spaces: tuple[Space, ...] = ("coil", "discrete", "input", "holding")
        for count in range(1, _PROOF_MOST, 8):
            for space in spaces:
                asked = question(space, 0, count, unit=job.asked.unit)
                if asked.function not in functions or (count > 1 and _shape(asked) not in self._doubts):
                    proof = Job(asked, job.timeout_s, 0, before=job)
                    self._send(proof, asked)
                    return proof
        return None

    def proved(self, proof: Job, *, refused: bool) -> bool:
        """All answers to earlier questions have come, or never will; unless something has mixed them up.

        A refusal has no length: it proves nothing while one to another question may yet come.
        """
        if refused and any(function == proof.sent.function for function, _ in self._doubts):
            return False
        self._wary |= {shape: each.until for shape, each in self._doubts.items()}
        self._doubts.clear()
        return True

    def exact(self, job: Job, now: float, for_s: float = _EXACT_S) -> None:
        """Nothing can be read along with this question."""
        if len(self._exact) >= _REMEMBERED:
            self._exact.clear()
        self._exact[_key(job.asked)] = now + for_s

    def along(self, job: Job, now: float, *, answered: bool) -> None:
        """More was read along, with this success."""
        key = _key(job.asked)
        if len(self._along) >= _REMEMBERED:
            self._along.clear()
        if answered:
            self._along[key] = -1
        elif self._along.get(key, 0) >= 0:
            self._along[key] = self._along.get(key, 0) + 1
            if self._along[key] >= _SUSPECTS:
                del self._along[key]
                self.exact(job, now, _DOUBT_S)
