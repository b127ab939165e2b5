"""Topics whose levels name devices and channels: each device has a group of columns, and keeps it."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from dxad import statefile
from dxad.config import parse
from dxad.errors import ConfigError, DecodeError
from dxad.runtime.clock import SystemClock
from dxad.sources.mqtt import Config, Mqtt
from tests.patience import PATIENCE_S
from tests.peers import publish


def document(port: int = 1, **settings: Any) -> dict[str, Any]:
    found = {
        "type": "mqtt",
        "url": f"mqtt://127.0.0.1:{port}",
        "topic": "plant/{device}/{channel}",
        "period": "100ms",
        "decode": {"kind": "number"},
        "channels": {"a": {}, "b": {}},
        **settings,
    }
    return {key: value for key, value in found.items() if value is not None}


def config(port: int = 1, **settings: Any) -> Config:
    return Config.model_validate(document(port, **settings))


@asynccontextmanager
async def connected(settings, state_dir=None):
    source = Mqtt("pumps", settings, clock=SystemClock(), state_dir=state_dir)
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def arriving(source, count):
    """The ids of the channels and the values of the next samples."""
    found = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            samples = (await source.read()).samples
            ids = [source.channels[column].id for column in samples["column"]]
            found += zip(ids, samples["value"].tolist(), strict=True)
    return found


async def asks_for_more(source):
    """Read again, as whoever has stored what there was."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await source.read()


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({}, r"topic: \{device\} wants to know its devices: devices = \["),
            (
                {"topic": "plant/{devcie}/{channel}", "max_devices": 2},
                r"\{devcie\} is no place; there are \{dev",
            ),
            ({"topic": "plant/pump-{device}/a", "max_devices": 2}, r"\{device\} stands for one whole level"),
            ({"topic": "{device}/{device}", "max_devices": 2}, "and stands there once"),
            ({"topic": "plant/{channel}", "max_devices": 2}, r"max_devices: the topic has no \{device\}"),
            ({"topic": "plant/{channel}", "devices": ["x"]}, r"devices: the topic has no \{device\}"),
            (
                {"channels": {"a": {}, "b": {"topic": "x"}}, "devices": ["x"]},
                r"channels\.b: its topic has no",
            ),
            ({"devices": ["x", "y"], "max_devices": 1}, "max_devices: there are 2 in `devices` already"),
            ({"devices": ["x", "x"]}, "devices: 'x' stands there twice"),
            ({"devices": {"x": "s", "y": "s"}}, "devices: 's' stands there twice"),
            ({"devices": {"x": "s/1"}}, "'s/1' is no level of a topic"),
            ({"devices": ["SN:1"]}, "a name has letters, digits"),
            (
                {"devices": ["device3"], "max_devices": 4},
                "'device3' is what a device is called that has no name",
            ),
            ({"max_devices": 2, "clock": "counted"}, '"counted" is of one stream'),
            ({"max_devices": 0}, "greater than or equal to 1"),
        ],
    )
    def test_refuses_what_does_not_go_together_and_says_what_does(self, settings, says):
        with pytest.raises(ValidationError, match=says):
            config(**settings)

    def test_channels_are_those_of_each_device(self):
        ids = [each.id for each in config(devices=["north"], max_devices=3).declared("pumps")]
        assert ids == [f"pumps.{each}" for each in (
            "north.a", "north.b", "device1.a", "device1.b", "device2.a", "device2.b",
        )]  # fmt: skip

    def test_a_place_keeps_its_name_when_there_are_more(self):
        few = [each.id for each in config(max_devices=9).declared("pumps")]
        assert [each.id for each in config(max_devices=11).declared("pumps")][: len(few)] == few

    def test_known_devices_alone_are_asked_for_and_others_by_a_wildcard(self):
        named = {"north": "SN 42", "south": "SN 77"}
        assert config(devices=named).filters() == [
            "plant/SN 42/a", "plant/SN 77/a", "plant/SN 42/b", "plant/SN 77/b",
        ]  # fmt: skip
        assert config(devices=named, max_devices=3).filters() == ["plant/+/a", "plant/+/b"]
        assert config(topic="plant/{channel}").filters() == ["plant/a", "plant/b"]

    @pytest.mark.parametrize("asked", ["pumps.*.a", ["north", "south"]])
    def test_a_template_serves_every_device(self, asked):
        made = parse(
            {
                "sources": {"pumps": document(devices=["north", "south"])},
                "pipelines": {
                    "pump": {
                        "for_each": asked,
                        "channels": ["pumps.{each}.*"],
                        "when": "pumps.{each}.a > 5",
                        "model": {"type": "zscore"},
                    }
                },
            }
        )
        assert {name: each.channels for name, each in made.pipelines.items()} == {
            "pump-north": ("pumps.north.*",), "pump-south": ("pumps.south.*",),
        }  # fmt: skip

    def test_a_channel_that_no_device_has_is_told_with_those_that_there_are(self):
        pipeline = {"channels": ["pumps.nord.a"], "model": {"type": "zscore"}}
        with pytest.raises(ConfigError, match=r"no channel 'pumps.nord.a', did you mean 'pumps.north.a'\?"):
            parse({"sources": {"pumps": document(devices=["north"])}, "pipelines": {"p": pipeline}})

    def test_devices_count_in_the_memory(self, tmp_path):
        from dxad.sizes import memory

        few = parse({"sources": {"pumps": document(max_devices=2)}})
        many = parse({"sources": {"pumps": document(max_devices=20)}})
        assert memory(many)["sources.pumps"] > memory(few)["sources.pumps"] + 9 * 18 * 2 * 6000


class TestNamed:
    async def test_levels_name_device_and_channel(self, broker):
        async with connected(config(broker, devices={"north": "SN 42", "south": "s"})) as source:
            await publish(broker, "plant/SN 42/b", b"1.5")
            await publish(broker, "plant/other/b", b"7")
            await publish(broker, "plant/s/a", b"2.5")
            assert await arriving(source, 2) == [("pumps.north.b", 1.5), ("pumps.south.a", 2.5)]
            assert source.faults == {}
            assert source.devices == ["north (SN 42)", "north (SN 42)", "south (s)", "south (s)"]

    async def test_channels_are_found_in_the_payload_of_a_device(self, broker):
        settings = {"topic": "plant/{device}/values", "decode": {"kind": "json"}, "devices": ["x", "y"]}
        async with connected(config(broker, **settings)) as source:
            await publish(broker, "plant/y/values", b'{"b": 1, "a": 2}')
            assert await arriving(source, 2) == [("pumps.y.a", 2.0), ("pumps.y.b", 1.0)]

    async def test_a_channel_may_say_where_its_device_stands(self, broker):
        settings = {"channels": {"a": {}, "b": {"topic": "{device}/+/bee/#"}}, "devices": ["x", "y"]}
        async with connected(config(broker, **settings)) as source:
            await publish(broker, "y/1/bee", b"1")
            await publish(broker, "x/2/bee/3", b"2")
            assert await arriving(source, 2) == [("pumps.y.b", 1.0), ("pumps.x.b", 2.0)]


class TestAppearing:
    async def test_each_gets_the_next_place_and_keeps_it_over_a_restart(self, broker, tmp_path):
        settings = config(broker, devices=["north"], max_devices=3)
        async with connected(settings, tmp_path) as source:
            for device, value in (("late", b"1"), ("north", b"2"), ("later", b"3"), ("late", b"4")):
                await publish(broker, f"plant/{device}/a", value)
            assert await arriving(source, 4) == [
                ("pumps.device1.a", 1.0), ("pumps.north.a", 2.0), ("pumps.device2.a", 3.0),
                ("pumps.device1.a", 4.0),
            ]  # fmt: skip
            await asks_for_more(source)
            assert source.devices[::2] == ["north", "device1 (late)", "device2 (later)"]
        async with connected(settings, tmp_path) as source:
            await publish(broker, "plant/later/a", b"5")
            await publish(broker, "plant/late/a", b"6")
            assert await arriving(source, 2) == [("pumps.device2.a", 5.0), ("pumps.device1.a", 6.0)]

    async def test_one_that_is_named_later_gives_its_place_back(self, broker, tmp_path):
        statefile.write(
            tmp_path / "sources" / "pumps.state",
            statefile.encode({"devices": {"device1": "x", "device2": "y", "device9": "z"}}),
        )
        async with connected(config(broker, devices={"ex": "x"}, max_devices=3), tmp_path) as source:
            assert source.devices[::2] == ["ex (x)", "", "device2 (y)"]
            await publish(broker, "plant/z/a", b"5")
            assert await arriving(source, 1) == [("pumps.device1.a", 5.0)]

    async def test_more_than_there_are_places_for_are_told_and_counted_by_name(self, broker):
        async with connected(config(broker, max_devices=1)) as source:
            for device in ("x", "y", "y", "z", "x"):
                await publish(broker, f"plant/{device}/a", b"1")
            came, rejected, told = 0, 0, ""
            async with asyncio.timeout(PATIENCE_S):
                while came < 2 or rejected < 3:  # in which pieces, is for the network to say
                    try:
                        came += len((await source.read()).samples)
                    except DecodeError as error:
                        rejected, told = rejected + error.rejected, told or str(error)
            assert (came, rejected) == (2, 3)
            assert "no place for the device 'y': it would be more than 1" in told
            assert source.faults == {"no place for 'y'": 2, "no place for 'z'": 1}

    async def test_a_flood_of_names_is_bounded(self, broker):
        async with connected(config(broker, max_devices=1)) as source:
            for number in range(500):
                source._fleet.taking(f"plant/x{number}/a")
            assert len(source.faults) == 51
            assert source.faults["no place for others"] == 449

    @pytest.mark.parametrize("device", ["", "x" * 300, "bell\x07"])
    async def test_a_level_that_is_no_name_takes_no_place(self, broker, device):
        async with connected(config(broker, max_devices=1)) as source:
            assert not source._fleet.taking(f"plant/{device}/a")
            assert source.devices == ["", ""]

    async def test_a_damaged_file_is_told_and_set_aside(self, broker, tmp_path):
        (tmp_path / "sources").mkdir()
        (tmp_path / "sources" / "pumps.state").write_bytes(b"junk")
        async with connected(config(broker, max_devices=1), tmp_path) as source:
            with pytest.raises(DecodeError, match="not known any more: its file is no state of dxad"):
                await source.read()
            await publish(broker, "plant/x/a", b"1")
            await arriving(source, 1)
            await asks_for_more(source)
        assert statefile.read(tmp_path / "sources" / "pumps.state") == {"devices": {"device1": "x"}}
        assert (tmp_path / "sources" / "pumps.state.damaged").exists()

    async def test_a_disk_that_takes_nothing_is_told_and_the_samples_come(self, broker, tmp_path):
        (tmp_path / "sources").write_bytes(b"a file where a folder should be")
        async with connected(config(broker, max_devices=1), tmp_path) as source:
            await publish(broker, "plant/x/a", b"1")
            told = ""
            samples = 0
            async with asyncio.timeout(PATIENCE_S):
                while not (told and samples):
                    try:
                        samples += len((await source.read()).samples)
                    except DecodeError as error:
                        told += str(error)
            assert "cannot" in told or "not known" in told


class TestVacancy:
    class Ingest:
        def __init__(self, devices):
            self.source = self
            if devices is not None:
                self.devices = devices

    @pytest.mark.parametrize(
        ("devices", "columns", "vacant"),
        [
            (["x", "x", "", ""], (2, 3), True),
            (["x", "x", "", ""], (1, 2), False),
            (["x", "x", "", ""], (), False),
            (None, (0, 1), False),
            ([], (0, 1), False),
        ],
    )
    def test_a_pipeline_is_vacant_where_it_reads_places_alone_that_nobody_has(self, devices, columns, vacant):
        from dxad.nodes import _vacant

        assert _vacant([("s", column) for column in columns], {"s": self.Ingest(devices)}) is vacant
