"""The MQTT sink and a broker that is not ours: mosquitto, in both versions of the protocol."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from dxad.errors import Backoff, NotConnected, Rejected
from dxad.event import Event, rfc3339, to_record
from dxad.runtime.clock import SystemClock, boot_id
from dxad.sinks.mqtt import Config, Mqtt
from dxad.types import NS_PER_S, Boot, Record
from hw_sim import pki
from hw_sim.ports import free_port
from tests.httppeers import record
from tests.mqttbrokers import PASSWORD, hearing, running_mosquitto
from tests.patience import PATIENCE_S

OPEN = "allow_anonymous true"


@asynccontextmanager
async def connected(port: int, *, scheme: str = "mqtt", **config: object) -> AsyncIterator[Mqtt]:
    settings = Config.model_validate({"type": "mqtt", "url": f"{scheme}://127.0.0.1:{port}", **config})
    sink = Mqtt("s", settings, state_dir=Path("/nonexistent"), gateway="gw3")
    try:
        await sink.connect()
        yield sink
    finally:
        await sink.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what comes is somebody else's doing
            await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    with running_mosquitto(tmp_path_factory.mktemp("m"), OPEN) as (port, _):
        yield port


@pytest.mark.parametrize("version", ["auto", "5", "3.1.1"])
async def test_what_it_has_acknowledged_reaches_those_who_subscribe(mosquitto, version):
    async with (
        hearing(mosquitto, "dxad/gw3/normal/#") as heard,
        connected(mosquitto, version=version) as sink,
    ):
        await sink.write([record(str(n)) for n in range(300)])
        await until(lambda: len(heard) == 300)
    assert [orjson.loads(each.payload)["id"] for each in heard] == [str(n) for n in range(300)]
    assert {each.topic for each in heard} == {"dxad/gw3/normal/dxad.test"}


async def test_the_broker_knows_until_when_an_event_counts(mosquitto):
    clock = SystemClock()
    at, now = clock.now(), time.time_ns()
    attributes = {"expiresat": rfc3339(now + 3600 * NS_PER_S)}
    beat = to_record(Event("beat", "dxad.test", "/gw", now, {}, at=at, attributes=attributes))
    beat.boot = Boot(boot_id(), now - at, clock_ok=True)
    async with hearing(mosquitto, "e/#") as heard:
        async with connected(mosquitto, topic="e/{type}") as sink:
            await sink.write([beat, record("for ever")])
        await until(lambda: len(heard) == 2)
    expiry = heard[0].message_expiry_interval
    assert expiry is not None
    assert 3000 < expiry <= 3600
    assert heard[1].message_expiry_interval is None


async def test_binary_mode_arrives_whole(mosquitto):
    async with hearing(mosquitto, "b/#") as heard:
        async with connected(mosquitto, mode="binary", topic="b/{type}") as sink:
            await sink.write([record("ü-1", flow=1.5)])
        await until(lambda: heard)
    assert orjson.loads(heard[0].payload) == {"flow": 1.5}
    assert dict(heard[0].user_properties)["id"] == "ü-1"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_the_status_is_kept_and_a_dead_gateway_looks_different(mosquitto, version):
    async def kept() -> list[bytes]:
        async with hearing(mosquitto, "dxad/gw3/status") as heard:
            await until(lambda: heard)
            return [each.payload for each in heard if each.retain]

    async with connected(mosquitto, version=version) as sink:
        assert await kept() == [b"online"]
        assert sink._link is not None
        assert sink._link._transport is not None
        sink._link._transport.abort()
        await asyncio.sleep(0.02)
        assert await kept() == [b"offline"]
        await sink.connect()
        assert await kept() == [b"online"]
    assert await kept() == [b"offline"]


async def test_a_restart_of_the_broker_is_known_at_once_and_costs_a_connection(tmp_path):
    port = free_port()
    with running_mosquitto(tmp_path, OPEN, port=port) as (_, process):
        async with connected(port) as sink:
            lost = asyncio.create_task(sink.lost())
            await sink.write([record("a")])
            process.send_signal(signal.SIGTERM)
            with pytest.raises(NotConnected):
                await lost
            process.wait()
            with running_mosquitto(tmp_path, OPEN, port=port):
                await sink.connect()
                async with hearing(port, "dxad/+/normal/#") as heard:
                    await sink.write([record("b")])
                    await until(lambda: heard)


async def test_a_login_and_an_access_list(tmp_path):
    (tmp_path / "acl").write_text("user gw\ntopic write dxad/gw3/normal/#\ntopic write dxad/gw3/status\n")
    (tmp_path / "acl").chmod(0o644)
    (tmp_path / "password").write_text(PASSWORD)
    lines = (f"password_file {tmp_path / 'users'}", f"acl_file {tmp_path / 'acl'}")
    login = {"username": "gw", "password": {"file": str(tmp_path / "password")}}
    with running_mosquitto(tmp_path, *lines) as (port, _):
        with pytest.raises(NotConnected, match="NOT_AUTHORIZED"):
            async with connected(port):
                pass
        async with connected(port, **login) as sink:
            await sink.write([record("a")])
        async with connected(port, topic="elsewhere/{type}", **login) as sink:
            with pytest.raises(Backoff, match=r"'elsewhere/dxad\.test': NOT_AUTHORIZED") as told:
                await sink.write([record("a")])
            assert told.value.taken == 0


async def test_a_message_larger_than_it_takes_is_rejected_and_its_neighbours_are_not(tmp_path):
    with running_mosquitto(tmp_path, OPEN, "max_packet_size 2000") as (port, _):
        async with hearing(port, "dxad/gw3/normal/#") as heard, connected(port) as sink:
            with pytest.raises(Rejected, match="the broker takes 2000 at most") as told:
                await sink.write([record("a"), record("b", text="x" * 3000), record("c")])
            assert told.value.indices == (1,)
            await until(lambda: len(heard) == 2)


async def told(sink: Mqtt, large: Record) -> list[type]:
    """What is raised until it is rejected; nothing where the broker takes it, and drops it."""
    raised: list[type] = []
    while Rejected not in raised:
        try:
            await sink.write([large])
        except NotConnected:
            raised.append(NotConnected)
            await sink.connect()
        except Rejected:
            raised.append(Rejected)
        else:
            break
    return raised


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_one_at_which_it_hangs_up_is_rejected_in_the_end(tmp_path, version):
    with running_mosquitto(tmp_path, OPEN, "message_size_limit 2000") as (port, _):
        async with connected(port, version=version) as sink:
            large = record("b", text="x" * 3000)
            assert await told(sink, large) in ([NotConnected, NotConnected, Rejected], [])
            await sink.connect()
            await sink.write([record("a")])


async def test_both_sides_show_certificates(tmp_path):
    keys = pki.make(tmp_path / "pki")
    for each in (keys.folder, tmp_path):
        each.chmod(0o755)
    certificate, key = keys.server
    lines = (
        OPEN,
        f"cafile {keys.ca}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
    )
    ours, secret = map(str, keys.client)
    with running_mosquitto(tmp_path, *lines) as (port, _):
        known = {"ca": str(keys.ca), "certificate": ours, "key": {"file": secret}}
        async with connected(port, scheme="mqtts", tls=known) as sink:
            await sink.write([record("a")])
        with pytest.raises(NotConnected, match="certificate"):
            async with connected(port, scheme="mqtts", tls={"ca": str(keys.ca)}):
                pass


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_hundred_connections_leave_nothing_behind(mosquitto):
    async with connected(mosquitto) as sink:
        before = descriptors()
        for n in range(100):
            assert sink._link is not None
            sink._link.fail("cut")
            await sink.connect()
            await sink.write([record(str(n))])
        await asyncio.sleep(0.01)
        assert descriptors() <= before + 1
