"""The serial source on a pty: lines, whole and broken, and a device that is pulled."""

import asyncio
import functools
import operator
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dxad.config import parse
from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.serial import Config, Serial
from dxad.types import Quality, Reason
from tests.patience import PATIENCE_S
from tests.peers import Pty


def config(port: Any = "/dev/null", **settings: Any) -> Config:
    document = {"type": "serial", "port": str(port), "decode": {"kind": "csv", "columns": ["x", "y"]}}
    return Config.model_validate({**document, **settings})


def summed(text: bytes) -> bytes:
    """A line with its checksum."""
    return b"%s*%02X\r\n" % (text, functools.reduce(operator.xor, text, 0))


@pytest.fixture
def device(tmp_path) -> Iterator[Pty]:
    pty = Pty(tmp_path / "tty")
    pty.plug()
    yield pty
    pty.unplug()


@asynccontextmanager
async def joined(device: Pty, **settings: Any) -> AsyncIterator[Serial]:
    """A source that has seen its first line end."""
    source = Serial("vib", config(device.link, **settings), clock=SystemClock())
    try:
        await source.connect()
        device.send(b"\n")
        yield source
    finally:
        await source.close()


async def arriving(source: Serial, count: int) -> list[float]:
    """The values of the next samples, column by column as they came."""
    values: list[float] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(values) < count:
            values += (await source.read()).samples["value"].tolist()
    return values


class TestConfig:
    def test_channels_default_to_the_columns(self):
        assert [each.id for each in config().declared("vib")] == ["vib.x", "vib.y"]

    def test_channels_may_be_fewer_and_say_more(self):
        (channel,) = config(channels={"y": {"unit": "mm/s", "range": [-50, 50]}}).declared("vib")
        assert (channel.id, channel.unit, channel.range) == ("vib.y", "mm/s", (-50.0, 50.0))

    def test_a_channel_that_is_no_column_is_refused(self):
        with pytest.raises(ValidationError, match="no column 'z'"):
            config(channels={"z": {}})

    def test_counts_its_samples_unless_told_otherwise(self):
        assert config().clock == "counted"
        assert config(clock="arrival").clock == "arrival"

    @pytest.mark.parametrize("wrong", [{"framing": {"kind": "cob"}}, {"checksum": "crc"}, {"port": ""}])
    def test_refuses_what_it_cannot_do(self, wrong):
        with pytest.raises(ValidationError):
            config(**wrong)

    def test_one_port_is_one_source_s(self):
        raw = {"type": "serial", "port": "/dev/ttyUSB0", "period": "1s", "decode": {"kind": "number"}}
        sources = {name: {**raw, "channels": {"x": {}}} for name in ("one", "two")}
        with pytest.raises(ConfigError) as told:
            parse({"sources": sources})
        (problem,) = told.value.problems
        assert (problem.key, problem.message[:40]) == (
            "sources.two",
            "/dev/ttyUSB0 is sources.one's already; o",
        )


class TestLines:
    async def test_each_gives_a_message_of_its_own(self, device):
        async with joined(device) as source:
            device.send(b"1,2\r\n3,4\n\r\n\n5,6\r\n")
            samples = (await source.read()).samples
            assert samples["value"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
            assert np.diff(samples["message"]).tolist() == [0, 1, 0, 1, 0]

    async def test_with_block_the_line_waits_and_nothing_is_lost(self, device):
        async with joined(device, overflow="block", queue=400) as source:
            text, at = b"".join(b"%d,0\n" % n for n in range(50_000)), 0
            while taken := device.send(text[at : at + 4_000]):
                at += taken
                await asyncio.sleep(0.001)
            assert at < len(text), "the line takes no more while nobody reads"
            values: list[float] = []
            while at < len(text):
                values += await arriving(source, 1)
                await asyncio.sleep(0)
                at += device.send(text[at : at + 4_000])
            values += await arriving(source, 100_000 - len(values))
            assert values[::2] == list(range(50_000))
            assert source.overflowed == 0

    async def test_half_a_line_waits_for_its_other_half(self, device):
        async with joined(device) as source:
            for piece in (b"1", b".5,", b"-2", b".25\r", b"\n"):
                device.send(piece)
                await asyncio.sleep(0.01)
            assert await arriving(source, 2) == [1.5, -2.25]

    async def test_the_rest_of_a_line_that_was_under_way_is_skipped_in_silence(self, device):
        source = Serial("vib", config(device.link), clock=SystemClock())
        await source.connect()
        device.send(b"34,5\r\n1,2\r\n")
        assert await arriving(source, 2) == [1.0, 2.0]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await source.read()
        await source.close()

    async def test_an_empty_field_is_bad_and_its_neighbour_is_not(self, device):
        async with joined(device) as source:
            device.send(b"1,\r\n")
            good, bad = (await source.read()).samples
            assert (good["value"], good["quality"]) == (1.0, Quality.GOOD)
            assert (bad["quality"], bad["reason"]) == (Quality.BAD, Reason.TYPE)

    async def test_malformed_ones_are_told_after_the_good_ones_and_keep_their_place(self, device):
        async with joined(device) as source:
            device.send(b"1,2\r\nnoise\r\n3;4\r\n5,6\r\n")
            await asyncio.sleep(0.05)
            samples = (await source.read()).samples
            assert samples["value"].tolist() == [1.0, 2.0, 5.0, 6.0]
            assert np.diff(samples["message"]).tolist() == [0, 3, 0]
            with pytest.raises(DecodeError, match="2 messages rejected, the first: 1 fields, not 2") as told:
                await source.read()
            assert told.value.rejected == 2

    async def test_an_overlong_one_is_rejected_however_it_ends(self, device):
        async with joined(device, framing={"kind": "line", "max_length": "16B"}) as source:
            device.send(b"1" * 40 + b",2\r\n3,4\r\n")
            assert await arriving(source, 2) == [3.0, 4.0]
            with pytest.raises(DecodeError, match="a frame of 42 bytes"):
                await source.read()
            device.send(b"1" * 40)
            with pytest.raises(DecodeError, match="no end of a frame in 40 bytes"):
                await source.read()
            device.send(b",9\r\n5,6\r\n")
            assert await arriving(source, 2) == [5.0, 6.0]

    async def test_another_decoder_reads_other_lines(self, device):
        settings = {"decode": {"kind": "json"}, "channels": {"x": {}}}
        async with joined(device, **settings) as source:
            device.send(b'{"x": 1.5}\r\n')
            assert await arriving(source, 1) == [1.5]


class TestChecksum:
    async def test_lines_with_the_right_one_pass(self, device):
        async with joined(device, checksum="xor") as source:
            device.send(summed(b"1,2") + summed(b"3,4").lower())
            assert await arriving(source, 4) == [1.0, 2.0, 3.0, 4.0]

    async def test_lines_with_a_wrong_one_or_none_do_not(self, device):
        async with joined(device, checksum="xor") as source:
            damaged = summed(b"1,2").replace(b"2", b"3", 1)
            device.send(damaged + b"1,2\r\n" + b"1,2*\r\n" + b"1,2*xx\r\n" + b"*\r\n" + summed(b"3,4"))
            assert await arriving(source, 2) == [3.0, 4.0]
            with pytest.raises(DecodeError, match="5 messages rejected, the first: checksum"):
                await source.read()


class TestPort:
    async def test_a_port_that_is_not_there_is_told(self, tmp_path):
        source = Serial("vib", config(tmp_path / "none"), clock=SystemClock())
        with pytest.raises(NotConnected, match=r"/none: No such file or directory"):
            await source.connect()

    async def test_a_port_that_is_none_is_told(self, tmp_path):
        (tmp_path / "file").touch()
        source = Serial("vib", config(tmp_path / "file"), clock=SystemClock())
        with pytest.raises(NotConnected, match=r"/file: "):
            await source.connect()
        await source.close()

    async def test_a_port_that_another_has_open_is_told(self, device):
        async with joined(device):
            other = Serial("vib", config(device.link), clock=SystemClock())
            with pytest.raises(NotConnected, match="another program, or another source, has it open"):
                await other.connect()
            await other.close()

    async def test_a_pulled_device_is_noticed_at_once_after_what_it_sent(self, device):
        async with joined(device) as source:
            device.send(b"1,2\r\n3,")
            await asyncio.sleep(0.02)
            device.unplug()
            assert await arriving(source, 2) == [1.0, 2.0]
            with pytest.raises(NotConnected, match=f"{device.link}: "):
                async with asyncio.timeout(0.5):
                    await source.read()

    async def test_nothing_spins_after_a_pull(self, device):
        async with joined(device) as source:
            device.unplug()
            await asyncio.sleep(0.02)
            before = os.times().user
            await asyncio.sleep(0.3)
            assert os.times().user - before < 0.1
            with pytest.raises(NotConnected):
                await source.read()

    async def test_a_replugged_device_is_joined_anew(self, device):
        async with joined(device) as source:
            device.send(b"1,")
            await asyncio.sleep(0.02)
            device.unplug()
            device.plug()
            await source.connect()
            device.send(b"2\r\n3,4\r\n")
            assert await arriving(source, 2) == [3.0, 4.0]

    async def test_a_flood_is_bounded_and_counted(self, device):
        async with joined(device) as source:
            flood, at = b"1,2\r\n" * 30_000, 0
            while at < len(flood):
                at += device.send(flood[at : at + 4_000])
                await asyncio.sleep(0)
            for _ in range(500):
                if source.overflowed == 40_000:
                    break
                await asyncio.sleep(0.01)
            assert source.overflowed == 40_000
            assert len((await source.read()).samples) == 20_000

    async def test_noise_of_a_wrong_baud_rate_is_bounded_and_told(self, device):
        noise = bytes(range(128, 256)) * 32
        async with joined(device) as source:
            async with asyncio.timeout(PATIENCE_S):
                while source.faults.get("dropped_bytes", 0) < 100_000:
                    device.send(noise)
                    await asyncio.sleep(0)
            with pytest.raises(DecodeError, match="no end of a frame in"):
                await source.read()
            assert source._framer.waiting <= 1024
            assert source.faults["overlong"] > 0
