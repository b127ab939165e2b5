"""When the socket of a busy link is looked at, and what a look brings."""

import asyncio
import socket

import pytest

from dxad.errors import NotConnected
from dxad.links.looks import Looks, until_beat
from dxad.runtime.clock import SteppedClock
from dxad.sources.mqtt import Config, Mqtt
from dxad.types import NS_PER_S
from tests.patience import PATIENCE_S

PAUSE_S = 0.02


class Taking(asyncio.Protocol):
    """Takes what comes, and waits for the next look after each."""

    def __init__(self, until=lambda: PAUSE_S) -> None:
        self.until = until
        self.taken: list[bytes] = []
        self.failed: list[str] = []
        self.over = asyncio.Event()
        self.quiet = False
        self.then = lambda: None
        """Is done as soon as something was taken."""

    def connection_made(self, transport):
        self.transport = transport
        self.looks = Looks(transport, self.data_received, self.fail, self.until)

    def data_received(self, data):
        self.taken.append(data)
        if data == b"boom":
            raise ZeroDivisionError
        if not self.quiet:
            self.looks.later()
        self.then()

    def fail(self, reason):
        self.failed.append(reason)
        self.transport.abort()

    def connection_lost(self, error):
        self.looks.stop()
        self.over.set()


@pytest.fixture
async def pair():
    """A protocol, and the socket of its peer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Taking, *server.getsockname())
        peer, _ = server.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield made, peer
        made.transport.abort()
        await made.over.wait()


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_comes_first_is_taken_at_once_and_what_comes_soon_after_together(pair):
    made, peer = pair
    peer.send(b"a")
    await until(lambda: made.taken)
    begun = asyncio.get_running_loop().time()
    assert not made.transport.is_reading()
    peer.send(b"b")
    peer.send(b"c")
    await until(lambda: len(made.taken) > 1)
    assert made.taken == [b"a", b"bc"]
    assert asyncio.get_running_loop().time() - begun > PAUSE_S / 2


async def test_what_a_peer_keeps_back_until_the_rest_is_acknowledged_comes_with_the_same_look(pair):
    made, peer = pair
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    for turn in range(5):
        before = len(made.taken)
        for number in range(20):  # Nagle's algorithm sends the first of them
            peer.send(f"{turn}.{number};".encode())
        await until(lambda before=before: len(made.taken) > before)
        await asyncio.sleep(0)
    await until(lambda: b"".join(made.taken).count(b";") == 100)
    assert len(made.taken) <= 8


async def test_a_look_that_brings_nothing_leaves_it_to_the_network_to_wake_us(pair):
    made, peer = pair
    peer.send(b"a")
    await until(lambda: made.taken and made.transport.is_reading())
    peer.send(b"b")
    await until(lambda: made.taken == [b"a", b"b"])


async def test_whoever_says_nothing_of_what_came_has_another_look(pair):
    made, peer = pair
    peer.send(b"a")
    await until(lambda: made.taken)
    made.quiet = True  # as TLS, of which half a record has come
    peer.send(b"b")
    await until(lambda: len(made.taken) > 1)
    peer.send(b"c")
    await until(lambda: made.taken == [b"a", b"b", b"c"])


async def test_who_is_stopped_looks_no_more_until_it_is_to_listen(pair):
    made, peer = pair
    peer.send(b"a")
    await until(lambda: made.taken)
    made.looks.stop()
    peer.send(b"b")
    await asyncio.sleep(2 * PAUSE_S)
    assert made.taken == [b"a"]
    made.looks.listen()
    await until(lambda: made.taken == [b"a", b"b"])


async def test_the_end_of_a_connection_is_noticed_at_a_look(pair):
    made, peer = pair
    peer.send(b"a")
    await until(lambda: made.taken)
    peer.send(b"last")
    peer.close()
    async with asyncio.timeout(PATIENCE_S):
        await made.over.wait()
    assert made.taken == [b"a", b"last"]
    assert not made.failed


async def test_a_connection_that_breaks_says_so_at_a_look(pair):
    made, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    made.then = peer.close  # with a reset
    peer.send(b"a")
    async with asyncio.timeout(PATIENCE_S):
        await made.over.wait()
    assert made.failed == ["connection lost: Connection reset by peer"]


async def test_what_cannot_be_taken_in_at_a_look_ends_the_connection(pair):
    made, peer = pair
    bugs = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))
    peer.send(b"a")
    await until(lambda: made.taken)
    peer.send(b"boom")
    async with asyncio.timeout(PATIENCE_S):
        await made.over.wait()
    assert [type(each) for each in bugs] == [ZeroDivisionError]
    assert made.failed == ["a message could not be taken in"]


async def test_beats_are_multiples_on_the_stream_clock():
    clock = SteppedClock(start=7 * NS_PER_S + 3_000_000)
    wait_s = until_beat(clock, 0.010)
    assert wait_s() == pytest.approx(0.007)
    clock.advance(7 * NS_PER_S + 10_000_000)
    assert wait_s() == pytest.approx(0.010)


async def test_what_was_kept_back_and_takes_a_while_to_come_is_glanced_at_once(pair):
    made, peer = pair
    made.looks._until = lambda: 0.2
    loop, times = asyncio.get_running_loop(), []
    peer.send(b"a")
    await until(lambda: made.taken)
    peer.send(b"b")
    for count, sent in ((2, b"c"), (3, b"d")):
        await until(lambda count=count: len(made.taken) == count)
        times.append(loop.time())
        peer.send(sent)
    await until(lambda: len(made.taken) == 4)
    times.append(loop.time())
    assert made.taken == [b"a", b"b", b"c", b"d"]
    assert times[1] - times[0] < 0.1, "a glance after the look that brought b"
    assert times[2] - times[1] > 0.1, "and no other after that"


async def test_a_source_whose_slots_are_short_looks_twice_in_each():
    section = Config.model_validate(
        {"type": "mqtt", "url": "mqtt://127.0.0.1:1", "topic": "t", "period": "10ms", "channels": {"a": {}}}
    )
    source = Mqtt("s", section, clock=SteppedClock())
    source.coalesce_s = 0.02
    with pytest.raises(NotConnected):
        await source.connect()
    assert source._between_s == pytest.approx(0.005)
    await source.close()
