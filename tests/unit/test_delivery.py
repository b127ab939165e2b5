"""An event that is worked on: kept, told when it is lost, acknowledged until the daemon has it."""

import asyncio

import pytest

from dxad.client import asking
from dxad.client.consumers import ConsumersClient
from dxad.client.delivery import Delivery
from dxad.errors import LeaseLostError, RequestRefusedError, ResourceUnavailableError
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.one_loop

TOLD = {"event": {"id": "e"}, "lease": "token", "attempts": 1}
LEASE_S = 0.02
FINE = {"stale": []}
STALE = {"stale": ["token"]}
AWAY = ResourceUnavailableError("nobody listens")
DISK = RequestRefusedError(503, "the outbox's disk fails: ENOSPC")
GONE = RequestRefusedError(404, "no consumer 'agent'")


class Daemon:
    """Answers what is prepared, the last thing again and again."""

    def __init__(self, **answers) -> None:
        self.answers = {
            "extend": [FINE],
            "ack": [FINE],
            "nack": [FINE],
            "lease": [{"events": [TOLD]}],
            **answers,
        }
        self.asked: list[str] = []
        self.client = ConsumersClient(self._ask, patience_s=1.0)

    async def _ask(self, _method, path, body=None, *, timeout_s=None):
        verb = path.rpartition("/")[2]
        self.asked.append(verb)
        answers = self.answers[verb]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def delivery(self) -> Delivery:
        return Delivery(self.client, "agent", TOLD, LEASE_S)

    async def until(self, verb: str, n: int) -> None:
        while self.asked.count(verb) < n:  # noqa: ASYNC110 - it is real time that passes
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(asking, "_MOST_S", 0.001)


async def test_a_lease_is_extended_until_the_work_is_done_and_then_acknowledged():
    daemon = Daemon()
    async with asyncio.timeout(PATIENCE_S), daemon.delivery():
        await daemon.until("extend", 3)
    assert (daemon.asked[-1], daemon.asked.count("ack")) == ("ack", 1)
    assert len(asyncio.all_tasks()) == 1


async def test_an_extension_that_fails_is_tried_again_while_the_lease_lasts():
    daemon = Daemon(extend=[AWAY, DISK, AWAY, FINE])
    delivery = daemon.delivery()
    delivery._until += 60  # however slow this machine is
    async with asyncio.timeout(PATIENCE_S), delivery:
        await daemon.until("extend", 5)
    assert delivery.lost is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [(STALE, "the lease was over"), (GONE, "no consumer 'agent'"), (AWAY, "needed longer: nobody listens")],
)
async def test_when_it_is_lost_the_work_ends_and_it_is_told(answer, why):
    daemon = Daemon(extend=[answer])
    cancelled = False
    with pytest.raises(LeaseLostError, match=why):  # noqa: PT012 - the work is part of it
        async with daemon.delivery():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled = True
                raise
    assert cancelled
    assert "ack" not in daemon.asked
    assert "nack" not in daemon.asked
    assert not asyncio.current_task().cancelling()
    await asyncio.sleep(0)  # and nothing of it comes later


async def test_work_that_is_cancelled_from_outside_gives_it_back():
    daemon = Daemon()

    async def work() -> None:
        async with daemon.delivery():
            await asyncio.sleep(60)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()
    assert daemon.asked[-1] == "nack"


async def test_done_is_said_until_the_daemon_has_it_on_disk_and_the_log_says_why(caplog):
    daemon = Daemon(ack=[DISK, DISK, AWAY, FINE])
    delivery = daemon.delivery()
    delivery._until += 60
    async with delivery:
        pass
    assert daemon.asked.count("ack") == 4
    said = [each.message for each in caplog.records]
    assert said == [
        "event e is done: the outbox's disk fails: ENOSPC; trying again",
        "event e is done: nobody listens; trying again",
    ]


async def test_what_has_raised_is_given_back_and_its_error_is_the_one_that_is_seen():
    daemon = Daemon(nack=[AWAY])
    with pytest.raises(KeyError, match="sensor"):
        async with daemon.delivery():
            raise KeyError("sensor")
    assert daemon.asked[-1] == "nack"


async def test_while_the_daemon_is_away_events_are_asked_for_again_and_again():
    daemon = Daemon(lease=[AWAY, DISK, {"events": []}, {"events": [TOLD]}])
    async for delivery in daemon.client.deliveries("agent", subjects=["x"]):
        assert delivery.event == {"id": "e"}
        break
    assert daemon.asked == ["lease"] * 4
    with pytest.raises(RequestRefusedError, match="no consumer"):
        await anext(Daemon(lease=[GONE]).client.deliveries("agent"))
