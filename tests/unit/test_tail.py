"""Events as they come, for whoever looks: from the file, over the socket, to the client."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import msgpack
import pytest
from click.testing import CliRunner

from dxad.cli.tail import tail as tail_command
from dxad.cli.tailview import line
from dxad.client import Client, SyncClient
from dxad.config import ControlSection
from dxad.control import Control
from dxad.control.limits import Limits
from dxad.errors import RequestRefusedError, ResourceUnavailableError
from dxad.outbox import Outbox
from dxad.outbox.inspection import Wanted
from dxad.outboxdesk import OutboxDesk
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.selection import Selection
from dxad.tailing import HEARTBEAT_NS, Tailing
from dxad.types import NS_PER_S, Lane, Record
from tests.patience import PATIENCE_S
from tests.unit.control.asking import ask, connected, soon
from tests.unit.outbox.records import file_size_limit

LANES = frozenset({Lane.CRITICAL, Lane.NORMAL})
EVENTS = Wanted(LANES)


def event(id_: str, lane: Lane = Lane.CRITICAL, type_: str = "dxad.incident.opened", **data) -> Record:
    document = {
        "specversion": "1.0", "id": id_, "type": type_, "source": f"/g/pipelines/{id_[0]}", "subject": id_,
        "time": "2026-11-25T08:30:00.000000Z", "data": data,
    }  # fmt: skip
    return Record(id_, lane, msgpack.packb(document))


class Rig:
    def __init__(self, folder: Path) -> None:
        self.clock = SteppedClock()
        self.path = folder / "c.sock"
        self.file = folder / "outbox.db"
        self.limits = Limits()

    @asynccontextmanager
    async def box(self, file: Path | None = None) -> AsyncIterator[Outbox]:
        box = Outbox(
            file, max_bytes=2**24, commit_window_s=0, health=Health(self.clock), metrics=Metrics(),
            clock=self.clock,
        )  # fmt: skip
        async with box:
            yield box

    @asynccontextmanager
    async def serving(self, box: Outbox) -> AsyncIterator[Control]:
        gateway = SimpleNamespace(outbox=OutboxDesk(box, self.clock))
        async with Control(gateway, ControlSection(socket=self.path), limits=self.limits) as control:
            yield control


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="dxad-", dir=".") as folder:
        yield Rig(Path(folder))


async def append(box: Outbox, *ids: str, **more) -> None:
    for each in ids:
        await box.append(event(each, **more))


async def take(pages, n: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < n:
            found += [each["event"]["id"] for each in (await anext(pages))["records"]]
    return found


class TestFollowing:
    async def test_what_is_stored_later_comes_in_its_order(self, rig):
        async with rig.box() as box:
            await append(box, "a")
            pages = Tailing(box, rig.clock).follow(EVENTS)
            assert await anext(pages) == {"records": [], "next": 1, "remark": ""}
            await append(box, "b", "c")
            assert await take(pages, 2) == ["b", "c"]
            await pages.aclose()
            assert not box._watching

    async def test_it_begins_with_so_many_of_the_past_as_are_wanted(self, rig):
        async with rig.box() as box:
            tailing = Tailing(box, rig.clock)
            await append(box, "a", "b", type_="dxad.model.promoted")
            await asyncio.gather(*(box.append(event(f"x{n}")) for n in range(600)))
            for lines, expected in ((1, ["b"]), (2, ["a", "b"]), (9, ["a", "b"])):
                wanted = Wanted(LANES, Selection(types=("dxad.model.*",)))
                pages = tailing.follow(wanted, lines=lines)
                assert await take(pages, len(expected)) == expected
                await pages.aclose()

    async def test_it_goes_on_behind_a_place(self, rig):
        async with rig.box() as box:
            await append(box, "a", "b", "c")
            pages = Tailing(box, rig.clock).follow(EVENTS, after=1)
            assert await take(pages, 2) == ["b", "c"]
            await pages.aclose()

    async def test_a_place_that_there_never_was_is_another_outbox_s(self, rig):
        async with rig.box() as box:
            await append(box, "a")
            pages = Tailing(box, rig.clock).follow(EVENTS, after=2**70)
            assert "another one" in (await anext(pages))["remark"]
            assert await take(pages, 1) == ["a"]
            await pages.aclose()

    async def test_what_is_of_no_interest_moves_the_place_that_signs_of_life_tell(self, rig):
        async with rig.box() as box:
            pages = Tailing(box, rig.clock).follow(Wanted(LANES, Selection(severities=("high",))))
            await anext(pages)
            following = asyncio.ensure_future(anext(pages))
            await append(box, "a", "b", severity="low")
            async with asyncio.timeout(PATIENCE_S):
                while not following.done():
                    await rig.clock.step(HEARTBEAT_NS)
            assert following.result() == {"records": [], "next": 2, "remark": ""}
            await append(box, "c", severity="high")
            assert await take(pages, 1) == ["c"]
            await pages.aclose()

    async def test_it_ends_with_the_outbox(self, rig):
        async with rig.box() as box:
            pages = Tailing(box, rig.clock).follow(EVENTS)
            await anext(pages)
            following = asyncio.ensure_future(anext(pages, None))
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            assert await following is None


class TestOnTheSocket:
    async def test_an_event_has_its_place_its_type_and_its_json(self, rig):
        async with rig.box() as box, rig.serving(box):
            await append(box, "a", "b")
            async with connected(rig.path) as (reader, writer):
                writer.write(
                    b"GET /v1/events?type=dxad.*&type=x&subject=b&lines=1 HTTP/1.1\r\nHost: x\r\n\r\n"
                )
                async with asyncio.timeout(PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    found = await reader.readuntil(b"}}\n\n")
        assert b"Content-Type: text/event-stream" in head
        assert b"retry: 2000\n\n: alive\nid: 1\n\n" in found
        assert b"id: 2\nevent: dxad.incident.opened\ndata: {" in found

    @pytest.mark.parametrize(
        ("asked", "header", "told"),
        [
            ("?since=yesterday", "", "since: 'yesterday' is neither"),
            ("?severity=loud", "", "severity"),
            ("?since=1h&since=2h", "", "since: said more than once"),
            ("?kind=x", "", "kind: unknown key"),
            ("", "Last-Event-ID: x7", "Last-Event-ID 'x7' is none of dxad's"),
        ],
    )
    async def test_what_is_asked_wrongly_is_told(self, rig, asked, header, told):
        async with rig.box() as box, rig.serving(box):
            reply = await ask(rig.path, "GET", f"/v1/events{asked}", None, *filter(None, [header]))
        assert reply.status == 422
        assert told in reply.detail

    async def test_one_who_follows_too_many_is_told_so_and_one_who_hangs_up_makes_room(self, rig):
        rig.limits = Limits(streams=1)
        async with rig.box() as box, rig.serving(box) as control:
            async with Client(rig.path) as one, Client(rig.path) as two:
                await append(box, "a")
                async for _ in one.tail(lines=1):
                    with pytest.raises(RequestRefusedError, match="1 clients follow events already"):
                        await anext(aiter(two.tail()))
                    break
            await soon(lambda: not control._clients)
            await soon(lambda: not box._watching)
            async with Client(rig.path) as three:
                assert (await anext(aiter(three.tail(lines=1))))["id"] == "a"

    async def test_a_slow_reader_misses_nothing_and_takes_no_memory(self, rig):
        async with (
            rig.box() as box,
            rig.serving(box) as control,
            connected(rig.path) as (reader, writer),
        ):
            reader._limit = 2**14  # it reads no further ahead than this
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"id: 0\n\n")
            for first in range(0, 200, 50):
                await asyncio.gather(
                    *(box.append(event(f"x{first + n}", pad="y" * 10_000)) for n in range(50))
                )
            (client,) = control._clients
            assert client._transport.get_write_buffer_size() < 2**20
            found = b""
            async with asyncio.timeout(PATIENCE_S):
                while b'"id":"x199"' not in found:
                    found += await reader.read(2**16)
        assert found.count(b"event: dxad.incident.opened\n") == 200

    async def test_one_who_does_not_read_at_all_is_let_go(self, rig):
        rig.limits = Limits(request_s=0.2)
        async with rig.box() as box, rig.serving(box) as control:
            async with connected(rig.path) as (reader, writer):
                reader._limit = 2**14
                writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
                await soon(lambda: box._watching)
                await asyncio.gather(*(box.append(event(f"x{n}", pad="y" * 10_000)) for n in range(100)))
                await soon(lambda: not control._clients)
            await soon(lambda: not box._watching)

    async def test_streams_end_with_the_control_socket(self, rig):
        async with rig.box() as box:
            async with rig.serving(box):
                reading = asyncio.create_task(_until_it_breaks(rig.path))
                await soon(lambda: box._watching)
            with suppress(ResourceUnavailableError):
                await reading
            await soon(lambda: not box._watching)


async def _until_it_breaks(path: Path) -> None:
    async with Client(path) as client:
        async for _ in client.tail():
            pass


class TestTheClient:
    async def test_it_goes_on_where_it_was_when_the_daemon_is_back(self, rig):
        found: list[str] = []
        told: list[str] = []

        async def follow() -> None:
            async with Client(rig.path) as client:
                async for each in client.tail(lines=5, retry=True, told=told.append):
                    found.append(each["id"])  # noqa: PERF401 - what has come is looked at meanwhile

        following = asyncio.create_task(follow())
        try:
            for ids in (("a", "b"), ("c",)):
                async with rig.box(rig.file) as box, rig.serving(box):
                    await append(box, *ids)
                    await soon(lambda: found[-1:] == [ids[-1]])  # noqa: B023 - it is waited for here
        finally:
            following.cancel()
            await asyncio.wait([following])
        assert found == ["a", "b", "c"]
        assert told
        assert all("trying again" in each for each in told)

    async def test_without_retry_it_ends_with_the_daemon_and_raises_if_that_died(self, rig):
        async with Client(rig.path) as client:
            async with rig.box() as box, rig.serving(box):
                tail = client.tail(after=0)
                pages = aiter(tail)
                await append(box, "a")
                assert (await anext(pages))["id"] == "a"
                assert tail.place == 1
                await box.close()
                assert await anext(pages, None) is None
            with pytest.raises(ResourceUnavailableError, match="no such socket"):
                await anext(aiter(client.tail()))

    def test_without_a_loop_they_are_iterated_over_too(self, rig):
        async def run() -> list[str]:
            async with rig.box() as box, rig.serving(box):
                await append(box, "a", "b")
                return await asyncio.to_thread(take_two)

        def take_two() -> list[str]:
            events = SyncClient(rig.path).tail(lines=5)
            found = [next(events)["id"], next(events)["id"]]
            events.close()
            return found

        assert asyncio.run(run()) == ["a", "b"]

    def test_the_command_prints_json_lines_and_ends_with_the_daemon(self, rig, monkeypatch):
        shown, module = [], sys.modules[tail_command.callback.__module__]
        as_json = module._as_json
        monkeypatch.setattr(module, "_as_json", lambda each: (as_json(each), shown.append(each["id"])))

        async def run() -> str:
            async with rig.box() as box, rig.serving(box):
                await append(box, "a", "b", severity="high")
                words = ["--socket", str(rig.path), "--json", "-n", "1"]
                asking = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, tail_command, words))
                await soon(lambda: shown == ["b"])
                await append(box, "c")
                await soon(lambda: shown == ["b", "c"])
                await box.close()
                return (await asking).output

        out = asyncio.run(run())
        assert out.splitlines()[0].startswith('{"specversion":"1.0","id":"b"')
        assert out.splitlines()[-1] == "dxad: the daemon has stopped"


class TestOnALine:
    def test_an_incident_says_how_bad_it_is_and_where_it_began(self):
        data = {
            "incident": "00ff00ff00", "phase": "opened", "severity": "high", "pipeline": "pump",
            "peak_score": 4.25, "limit": 2.0, "first_out": {"channel": "motor.current"},
        }  # fmt: skip
        told = line({"type": "dxad.incident.opened", "time": "2026-11-25T08:30:00.123456Z", "data": data})
        assert told.plain.split("  ")[0] == "2026-11-25 08:30:00.123"
        assert told.plain.endswith("pump, peak 4.25 over 2.00, first out motor.current, 00ff00ff")

    def test_what_comes_from_the_field_cannot_steer_the_terminal(self):
        told = line({"type": "dxad.x", "time": "t", "data": {"reason": "\x1b[2Jgone"}})
        assert "\x1b" not in told.plain
        assert "unreadable" in line({"unreadable": "00"}).plain


async def test_while_the_disk_fails_events_are_seen_from_memory_and_only_once(rig):
    async with rig.box(rig.file) as box:
        await append(box, "a")
        pages = Tailing(box, rig.clock).follow(EVENTS, after=0)
        assert await take(pages, 1) == ["a"]
        with file_size_limit(4096):
            stored = asyncio.ensure_future(box.append(event("b", pad="y" * 10_000)))
            async with asyncio.timeout(PATIENCE_S):
                page = await anext(pages)
                while not page["records"]:
                    page = await anext(pages)
            assert [(each["seq"], each["event"]["id"]) for each in page["records"]] == [(None, "b")]
            assert "in memory alone" in (await anext(pages))["remark"]
        async with asyncio.timeout(PATIENCE_S):
            while not stored.done():
                await rig.clock.step(NS_PER_S)
                await asyncio.sleep(0.005)
        await append(box, "c")
        assert await take(pages, 1) == ["c"], "b is known"
        await pages.aclose()
