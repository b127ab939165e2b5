"""A connection that has much to say does not keep the loop from others."""

import asyncio
import time

import mqtt5
import pytest

from dxad.links.mqtt import MqttLink


class Wire(asyncio.Transport):
    """Whether it may be read is all that matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def get_extra_info(self, name, default=None):
        return self

    def setsockopt(self, *_option) -> None:
        """As the socket that it says it is."""

    def write(self, data) -> None:
        """Nobody listens."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.reading = False


@pytest.fixture
async def link():
    """An MqttLink that takes a tenth of a millisecond for each message, and what it has taken."""
    taken: list[int] = []

    def take(packet: mqtt5.PublishPacket) -> None:
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            pass
        taken.append(int(packet.payload))

    made = MqttLink(
        "mqtt://test", mqtt5.ConnectPacket(client_id="t", keep_alive=60), take, lambda _error: None,
        on_looked=lambda _whole: None, on_too_large=lambda _reason: None, version="5", sole=False,
        session=None, until_look=None,
    )  # fmt: skip
    made.connection_made(Wire())
    made.data_received(mqtt5.ConnAckPacket().write())
    yield made, taken
    made._end(made._not("over"))


def flood(first: int, count: int) -> bytes:
    return b"".join(
        mqtt5.PublishPacket("t", payload=str(number).encode()).write()
        for number in range(first, first + count)
    )


async def test_others_have_their_turn_every_few_milliseconds_and_nothing_is_lost_or_out_of_order(link):
    made, taken = link
    wire, turns = made._transport, []
    made.data_received(flood(0, 500))
    assert 0 < len(taken) < 100
    assert not wire.reading, "nothing more is read before this was looked at"
    while len(taken) < 500:
        turns.append(len(taken))
        await asyncio.sleep(0)
    assert taken == list(range(500))
    assert len(turns) > 5
    await asyncio.sleep(0)
    assert wire.reading


async def test_whoever_holds_it_back_meanwhile_holds_it_back(link):
    made, taken = link
    made.data_received(flood(0, 200))
    made.hold(held=True)
    seen = len(taken)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(taken) == seen
    made.hold(held=False)
    for _ in range(100):
        await asyncio.sleep(0)
    assert taken == list(range(200))
    await asyncio.sleep(0)
    assert made._transport.reading


async def test_what_is_over_goes_on_no_more(link):
    made, taken = link
    made.data_received(flood(0, 200))
    seen = len(taken)
    made._end(made._not("gone"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(taken) == seen


async def test_a_message_that_cannot_be_taken_in_ends_the_connection():
    lost = []

    def take(packet: mqtt5.PublishPacket) -> None:
        if packet.payload == b"150":
            raise ZeroDivisionError
        time.sleep(1e-4)

    made = MqttLink(
        "mqtt://test", mqtt5.ConnectPacket(client_id="t", keep_alive=60), take, lost.append,
        on_looked=lambda _whole: None, on_too_large=lambda _reason: None, version="5", sole=False,
        session=None, until_look=None,
    )  # fmt: skip
    made.connection_made(Wire())
    made.data_received(mqtt5.ConnAckPacket().write())
    bugs = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))
    made.data_received(flood(0, 300))
    for _ in range(100):
        await asyncio.sleep(0)
    assert [type(each) for each in bugs] == [ZeroDivisionError], "told with its traceback"
    assert [str(each) for each in lost] == ["mqtt://test: a message could not be taken in"]
