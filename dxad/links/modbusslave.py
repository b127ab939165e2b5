"""What a Modbus link knows of one slave: whether it is alive, how fast it answers, and what it may yet say.

RTU and ASCII have no transaction id. An answer that was not in time may come at any later moment, and looks
like one to whatever is asked then. Three things keep it from being taken for another's:

    rest        after a silence, the slave is not asked for a while
    length      while an answer may still come, no question has an answer of its length: some registers more
                are read along, where they may be
    proof       where they may not be, a question of another function comes first; a slave answers in turn, so
                its answer proves that all before it have come, or never will

Answers that come twice: see `modbustwins`.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from dxad.links.modbusframe import Question, Space, longer, question
from dxad.links.modbusjob import EXCEPTION, Job
from dxad.links.modbustwins import Shape, Twins, shape_of

__all__ = ["Slave"]

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
_PROOF_MOST: Final = 122
"""Addresses of a proof; each eight more make it another."""
_DOUBT_S: Final = 20.0
"""So long after its question an answer may still come."""
_REMEMBERED_S: Final = 600.0
"""How long it counts against a slave that its answers came in another order."""
_EARLY: Final = 0.8
"""What comes in so much less than the shortest time of late may be the answer to an earlier question."""
_EXACT_S: Final = 3600.0
"""So long it is remembered that nothing more may be read along."""
_SUSPECTS: Final = 2
"""So many silences to a question that reads along what it never did before, and it is asked without."""
_REMEMBERED: Final = 1024
"""Questions of which it is known whether more may be read along."""

_TRAFFIC: Final = ("asked", "answered", "refused", "unfitting", "silent", "lost", "late", "again")

_Key = tuple[int, int, int]
"""Of a question: function, first, count."""


@dataclass(slots=True)
class _Doubt:
    """Answers of one shape that may yet come."""

    job: Job
    count: int
    until: float


def _key(asked: Question) -> _Key:
    return asked.function, asked.first, asked.count


class Slave:
    """One id on a link. All times are the loop's."""

    def __init__(self) -> None:
        self.traffic = dict.fromkeys(_TRAFFIC, 0)
        """Questions that were `asked`, and what became of each: `answered` with values, `refused` by an
        exception, `unfitting` where what came was no answer to it, `silent`, or `lost` with the connection;
        and answers that were `late`, to questions that were given up before, or came `again`."""
        self.jobs: deque[Job] = deque()
        self.misses = 0
        self.ask_at = 0.0
        """Before this, it is not asked: it was silent too often."""
        self.quiet_until = 0.0
        """Before this, it is left alone: an answer may be on its way."""
        self._longest_s = 0.0
        """Of its answers of late; 0 before the first."""
        self._shortest_s = 0.0
        """The same."""
        self._patience_least_s = _PATIENCE_LEAST_S
        self._doubts: dict[Shape, _Doubt] = {}
        self._wary: dict[Shape, float] = {}
        """Shapes of late answers that a proof has ruled out, and how long a second one is looked for."""
        self.twins = Twins()
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
        self.twins.sent(job.sent, now)
        self.traffic["asked"] += 1

    def told(self, job: Job, pdu: bytes) -> None:
        """It is answered, in whatever way."""
        sent = job.sent
        if pdu[0] == sent.function | EXCEPTION:
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
            self._shortest_s = min(job.took_s, (self._shortest_s or job.took_s) / _FORGETS)

    def hold_s(self, job: Job, gap_s: float, now: float) -> float:
        """How long an answer is kept to see whether another one comes to the same question."""
        takes_s = self._rest_s(job, gap_s, now)
        hold_s = gap_s
        if now < self._wary.get(shape_of(job.sent), 0.0):
            hold_s = max(hold_s, min(job.timeout_s, 2 * self._longest_s))
        if job.pdu[0] & EXCEPTION:
            if self.twins.refused(now):
                hold_s = max(hold_s, takes_s, self.twins.within_s)
        elif not job.alone and job.took_s < _EARLY * self._shortest_s:
            hold_s = max(hold_s, takes_s)
        return hold_s

    def proof_s(self, job: Job, gap_s: float, now: float) -> float:
        """How long to wait behind an answer for one too many, where there is time; 0 for no proof."""
        takes_s = self._rest_s(job, gap_s, now)
        return takes_s if self.twins.unproved and now + takes_s <= job.idle_until else 0.0

    def _rest_s(self, job: Job, gap_s: float, now: float) -> float:
        """How long its answer may yet take, if what came was none: it may have been busy with another's."""
        return gap_s + max(0.0, job.sent_at + 2 * self._longest_s - now)

    def twin(self, job: Job, pdu: bytes, now: float) -> None:
        """One more answer has come to the question."""
        self.traffic["again"] += 1
        self.twins.again(job.sent, pdu, now)

    def late(self) -> list[Question]:
        """The questions whose answers may yet come, or come once more."""
        awaited = [each.job.sent for each in self._doubts.values()]
        return awaited + [each for each in self.twins.asked if shape_of(each) not in self._doubts]

    def doubt(self, job: Job, now: float, quiet_s: float, *, for_s: float = _DOUBT_S) -> None:
        """An answer to what was sent may yet come."""
        sent = job.sent
        there = self._doubts.get(shape_of(sent))
        self._doubts[shape_of(sent)] = _Doubt(job, 1 + (0 if there is None else there.count), now + for_s)
        self.quiet_until = max(self.quiet_until, now + quiet_s)

    def refused(self, job: Job, now: float) -> None:
        """It was answered by a refusal, which has no length: it may be one to an earlier question."""
        if any(function == job.sent.function for function, _ in self._doubts):
            self.doubt(job, now, 0.0)

    def arrived(self, late: Question, pdu: bytes, now: float) -> None:
        """An answer that nobody waited for has come; with the last one that may, the rest is over."""
        doubt, refused = self._doubts.get(shape_of(late)), bool(pdu[0] & EXCEPTION)
        self.traffic["again" if doubt is None else "late"] += 1
        if refused and len([1 for function, _ in self._doubts if function == late.function]) > 1:
            return  # nobody knows to which
        if doubt is None:
            self.twins.again(late, pdu, now)
            if not self._doubts:
                self.quiet_until = min(self.quiet_until, now)
            if shape_of(late) in self._wary:
                self._unordered_until = now + _REMEMBERED_S
            return
        self.twins.answered(late, pdu, now)
        if doubt.job.sent_at < self._answered_to:
            self._unordered_until = now + _REMEMBERED_S
        doubt.count -= 1
        if doubt.job.sent is not doubt.job.asked:
            self.along(doubt.job, now, answered=True)
        if not doubt.count:
            del self._doubts[shape_of(late)]
        self.ask_at = 0.0
        if not self._doubts:
            self.quiet_until = min(self.quiet_until, now)

    def next_on_line(self, job: Job, now: float) -> Job | None:
        """What to send for it, so that no answer but its own can be taken for its own: it or a proof.

        Returns None where there is nothing but to wait: until `ask_at` or `quiet_until`, or a late answer.
        """
        for shape in [shape for shape, each in self._doubts.items() if each.until <= now]:
            del self._doubts[shape]
        for shape in [shape for shape, until in self._wary.items() if until <= now]:
            del self._wary[shape]
        fits = [
            each for each in longer(job.asked, self._more(job, now)) if shape_of(each) not in self._doubts
        ]
        if not fits:
            proof = self._proof(job) if now >= self._unordered_until else None
            if proof is None:
                self.ask_at = max(self.ask_at, min(each.until for each in self._doubts.values()))
            return proof
        job.sent, job.alone = self.twins.pick(fits, now)
        if not job.alone and (ready_at := self.twins.ready_at(job.sent, now)) > now:
            self.quiet_until = max(self.quiet_until, ready_at)
            return None
        return job

    def _more(self, job: Job, now: float) -> int:
        return job.more if self._exact.get(_key(job.asked), 0.0) <= now else 0

    def _proof(self, job: Job) -> Job | None:
        """A question before it, whose answer can be taken for no other; None where there is none left."""
        functions = {function for function, _ in self._doubts}
        spaces: tuple[Space, ...] = ("coil", "discrete", "input", "holding")
        for count in range(1, _PROOF_MOST, 8):
            for space in spaces:
                asked = question(space, 0, count, unit=job.asked.unit)
                if asked.function not in functions or (count > 1 and shape_of(asked) not in self._doubts):
                    return Job(asked, job.timeout_s, 0, before=job)
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
