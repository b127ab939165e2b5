"""A device behind a broker is alive if something proves it, and what it said is held no longer than that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import mqtt5
import pytest
from pydantic import ValidationError

from dxad.errors import DecodeError
from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.sources.mqtt import Config, Mqtt
from dxad.types import NS_PER_S, Quality, Reason
from tests.patience import PATIENCE_S
from tests.peers import publish

STATUS = {"topic": "t/status"}


def config(port: int = 1, **settings: Any) -> Config:
    document = {
        "type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "topic": "t", "period": "100ms", "hold": "session",
        "channels": {"a": {}, "b": {}},
    }  # fmt: skip
    return Config.model_validate({**document, **settings})


class Bench:
    """A source that is spoken to without a broker, on a clock that is stepped."""

    def __init__(self, **settings: Any) -> None:
        self.clock = SteppedClock()
        self.source = Mqtt("s", config(**settings), clock=self.clock)
        self.source._inbox.open()
        self.source._liveness.begin()

    def says(self, topic: str, payload: bytes = b"", *, retain: bool = False) -> None:
        self.source._message(mqtt5.PublishPacket(topic, payload, retain=retain))
        self.source._looked(True)

    async def after(self, seconds: float) -> list[tuple[str, str | Reason]]:
        """Let time pass; the channels that came until then, with what is wrong with them."""
        for _ in range(20):
            await self.clock.step(int(seconds * NS_PER_S / 20), settle=0)
            self.source._liveness._look()
        found: list[tuple[str, str | Reason]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.005):
                while True:
                    for each in (await self.source._inbox.block()).samples:
                        said = Reason(each["reason"]) if each["quality"] == Quality.BAD else "good"
                        found.append((self.source.channels[each["column"]].id.removeprefix("s."), said))
        return found


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    made = Bench(**settings)
    try:
        yield made
    finally:
        await made.source.close()


GOOD = [("a", "good"), ("b", "good")]
DEAD = [("a", Reason.TIMEOUT), ("b", Reason.TIMEOUT)]
OFFLINE = [("a", Reason.DEVICE), ("b", Reason.DEVICE)]


class TestConfig:
    def test_what_is_held_by_session_wants_a_proof(self):
        for settings in ({}, {"hold": "1s", "channels": {"a": {"hold": "session"}}}):
            with pytest.raises(
                ValidationError, match="a broker answers for itself alone: heartbeat, status or"
            ):
                config(**settings)
        assert config(hold=None, channels={"a": {}})

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"heartbeat": "x/{channel}"}, "a device lives as a whole"),
            ({"heartbeat": "x/{device}"}, r"heartbeat: there is a \{device\} in it, and none in the topic"),
            ({"status": {"topic": "x/{device}"}}, r"status: there is a \{device\} in it"),
            ({"status": {"topic": "x", "offline": "online"}}, "'online' is what it says when it is online"),
            ({"status": {"topic": "x", "path": "a["}}, "path: 'a\\[' is no path such as"),
            ({"max_age": "1s", "clock": "counted"}, "max_age: a counted stream has no other proof"),
        ],
    )
    def test_refuses_what_does_not_go_together(self, settings, says):
        with pytest.raises(ValidationError, match=says):
            config(**settings)

    def test_signs_are_asked_for_and_never_shared(self):
        made = config(
            share="g", heartbeat="alive/{device}", status=STATUS, topic="t/{device}", devices=["x", "y"]
        )
        assert made.filters() == ["$share/g/t/x", "$share/g/t/y", "alive/x", "alive/y", "t/status"]


VALUES = b'{"a": 1, "b": 2}'


class TestHeartbeat:
    async def test_without_one_for_too_long_nothing_is_held_and_the_reason_is_told_once(self):
        async with bench(heartbeat="alive", max_age="10s") as at:
            at.says("t", VALUES)
            assert await at.after(9) == GOOD
            for _ in range(4):
                at.says("alive")
                assert await at.after(9) == []
            assert await at.after(60) == DEAD
            assert at.source.faults == {"no sign of life": 1}
            at.says("alive")
            assert await at.after(9) == []
            assert await at.after(9) == DEAD

    async def test_thirty_seconds_are_the_default(self):
        async with bench(heartbeat="alive") as at:
            assert await at.after(29) == []
            assert await at.after(3) == DEAD

    async def test_one_that_the_broker_had_kept_proves_nothing(self):
        async with bench(heartbeat="alive", max_age="10s") as at:
            await at.after(8)
            at.says("alive", retain=True)
            assert await at.after(5) == DEAD

    async def test_values_of_a_device_that_was_given_up_are_good_for_a_while(self):
        async with bench(heartbeat="alive", max_age="10s") as at:
            assert await at.after(20) == DEAD
            at.says("t", VALUES)
            assert await at.after(9) == GOOD
            assert await at.after(9) == DEAD

    async def test_a_new_connection_gives_time_to_prove_it_anew(self):
        async with bench(heartbeat="alive", max_age="10s") as at:
            assert await at.after(20) == DEAD
            at.source._liveness.begin()
            assert await at.after(9) == []
            assert await at.after(9) == DEAD

    async def test_it_is_looked_after_while_nothing_comes(self, broker):
        source = Mqtt("s", config(broker, heartbeat="alive", max_age="200ms"), clock=SystemClock())
        try:
            await source.connect()
            async with asyncio.timeout(PATIENCE_S):
                assert set((await source.read()).samples["reason"]) == {Reason.TIMEOUT}
        finally:
            await source.close()


class TestStatus:
    async def test_a_device_that_says_that_it_goes_takes_back_what_it_said(self):
        async with bench(status=STATUS) as at:
            at.says("t/status", b"online")
            at.says("t", VALUES)
            assert await at.after(1) == GOOD
            at.says("t/status", b"offline")
            at.says("t/status", b" offline\n")
            assert await at.after(1) == OFFLINE
            assert at.source.faults == {"offline": 1}

    async def test_what_came_together_with_its_end_stands_before_that(self):
        async with bench(status={"topic": "t"}, decode={"kind": "json"}, max_age="10s") as at:
            at.source._message(mqtt5.PublishPacket("t", VALUES))
            at.says("t", b"offline")
            samples = (await at.source._inbox.block()).samples
            assert samples["reason"].tolist() == [Reason.NONE, Reason.NONE, Reason.DEVICE, Reason.DEVICE]

    async def test_what_the_broker_had_kept_of_it_counts(self, broker):
        await publish(broker, "t/status", b"gone", retain=True)
        status = {"topic": "t/status", "online": "here", "offline": "gone"}
        source = Mqtt("s", config(broker, status=status), clock=SystemClock())
        try:
            await source.connect()
            async with asyncio.timeout(PATIENCE_S):
                assert set((await source.read()).samples["reason"]) == {Reason.DEVICE}
        finally:
            await source.close()

    async def test_one_that_is_there_needs_no_other_proof(self):
        async with bench(status=STATUS) as at:
            at.says("t/status", b"online", retain=True)
            assert await at.after(3600) == []
            at.source._liveness.begin()
            assert await at.after(60) == DEAD, "it has told this connection nothing"

    @pytest.mark.parametrize(
        ("payload", "found"),
        [
            (b'{"link": {"up": false}}', OFFLINE), (b'{"link": {"up": true}}', []), (b"{}", []), (b"", []),
        ],
    )  # fmt: skip
    async def test_it_may_stand_in_json(self, payload, found):
        status = {**STATUS, "path": "link.up", "online": "true", "offline": "false"}
        async with bench(status=status) as at:
            at.says("t/status", payload)
            assert await at.after(1) == found

    async def test_junk_in_place_of_json_is_told(self):
        async with bench(status={**STATUS, "path": "state"}) as at:
            at.says("t/status", b"{")
            with pytest.raises(DecodeError, match="the status 'no JSON' is neither"):
                await at.after(1)

    async def test_words_that_nobody_knows_are_told(self):
        async with bench(status=STATUS) as at:
            at.says("t/status", b"fine")
            at.says("t/status", b"")
            with pytest.raises(DecodeError, match=r"1 messages .* 'fine' is neither 'online' nor 'offline'"):
                await at.after(1)


async def test_messages_prove_it_where_nothing_else_does():
    async with bench(max_age="10s") as at:
        for _ in range(3):
            at.says("t", VALUES)
            assert await at.after(9) == GOOD
        assert await at.after(9) == DEAD


class TestDevices:
    settings: ClassVar = {"topic": "t/{device}", "max_devices": 3}

    async def test_each_has_its_own_proof(self):
        async with bench(**self.settings, heartbeat="alive/{device}", max_age="10s") as at:
            for device in ("x", "y"):
                at.says(f"t/{device}", VALUES)
            assert len(await at.after(6)) == 4
            found = []
            for _ in range(3):
                at.says("alive/y")
                at.says("alive/stranger")
                found += await at.after(6)
            assert found == [("device1.a", Reason.TIMEOUT), ("device1.b", Reason.TIMEOUT)]
            assert at.source.faults["no sign of life: x"] == 1
            assert at.source.devices[::2] == ["device1 (x)", "device2 (y)", ""]

    async def test_a_status_takes_no_place_and_is_known_when_the_device_comes(self):
        async with bench(**self.settings, status={"topic": "status/{device}"}) as at:
            at.says("status/old", b"offline", retain=True)
            at.says("t/x", VALUES)
            at.says("status/x", b"offline")
            assert await at.after(1) == [
                ("device1.a", "good"), ("device1.b", "good"),
                ("device1.a", Reason.DEVICE), ("device1.b", Reason.DEVICE),
            ]  # fmt: skip
            assert at.source.devices[::2] == ["device1 (x)", "", ""]

    async def test_a_heartbeat_of_all_of_them_ends_them_all(self):
        async with bench(**self.settings, heartbeat="alive", max_age="10s") as at:
            for device in ("x", "y"):
                at.says(f"t/{device}", VALUES)
            assert len(await at.after(1)) == 4
            assert await at.after(60) == [
                (f"device{n}.{each}", Reason.TIMEOUT) for n in (1, 2) for each in "ab"
            ]

    async def test_names_without_end_take_no_memory_without_end(self):
        async with bench(**self.settings, heartbeat="alive/{device}") as at:
            for number in range(12_000):
                at.says(f"alive/{number}")
            assert len(at.source._liveness._subjects) == 2_000
            assert len(at.source._liveness._of_topic) <= 10_000
