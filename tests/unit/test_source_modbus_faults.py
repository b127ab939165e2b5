"""Whatever the simulator does to Modbus answers, no value that is called good is another's, or none."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from dxad.errors import NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.modbus import Config, Modbus
from dxad.types import Block, Quality, Reason
from hw_sim.modbus.faults import FAULTS
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.modbus_rig import Wired, serving

TRUTH = {"a": 1000.0, "b": 2000.0, "c": 3000.0, "d": 4000.0}
"""By channel. Each is a block of its own, and all are of one length."""
PLACES = {"a": "input:0", "b": "input:100", "c": "input:200", "d": "holding:300"}
SLAVE = {
    "id": 1,
    "size": 400,
    "registers": {name: {"register": PLACES[name], "channel": f"panel.{name}"} for name in TRUTH},
}

Settings = Mapping[str, str]
FAULTY: list[tuple[str, Settings, Settings]] = [
    ("silence", {}, {}), ("silence", {"every": "3"}, {}), ("dead_slave", {}, {}),
    ("disconnect", {"every": "3"}, {}), ("refuse", {}, {}), ("illegal_address", {}, {}), ("frozen", {}, {}),
    ("illegal_address", {"address": "100", "every": "2"}, {}), ("wrong_id", {}, {}),
    ("wrong_id", {"every": "3"}, {}), ("wrong_function", {}, {}), ("wrong_function", {"every": "2"}, {}),
    ("wrong_length", {}, {}), ("wrong_length", {"what": "header"}, {}),
    ("wrong_length", {"what": "data"}, {}), ("wrong_transaction", {}, {}),
    ("wrong_transaction", {"every": "3"}, {}), ("crc", {}, {}),
    ("crc", {"every": "2"}, {}), ("half_frame", {}, {}), ("half_frame", {"every": "3"}, {}),
    ("duplicate", {}, {}), ("duplicate", {"every": "2"}, {}), ("garbage", {}, {}),
    ("garbage", {"where": "after", "every": "2"}, {}), ("noise", {"period": "7ms"}, {}), ("echo", {}, {}),
    ("split", {"gap": "20ms"}, {}), ("split", {"gap": "90ms", "every": "2"}, {}),
    ("late", {"by": "90ms"}, {}), ("late", {"by": "200ms"}, {}), ("late", {"by": "200ms", "every": "3"}, {}),
    # Answers that come when nobody is quiet for them any more:
    ("late", {"by": "200ms"}, {"quiet": "50ms"}), ("late", {"by": "200ms", "every": "2"}, {"quiet": "50ms"}),
    ("late", {"by": "500ms"}, {"quiet": "50ms"}), ("late", {"by": "500ms", "every": "3"}, {"quiet": "50ms"}),
    *(("exception", {"code": str(code)}, {}) for code in range(1, 12)),
    ("exception", {"code": "6", "every": "2"}, {}),
]  # fmt: skip
BROKEN_S = 0.7
MENDED_S = 6.0


def source_of(url: str, **settings: str) -> Modbus:
    channels = {name: {"register": register} for name, register in PLACES.items()}
    document: dict[str, Any] = {"type": "modbus", "url": url, "period": "20ms", "timeout": "80ms"}
    config = Config.model_validate({**document, "channels": channels, "retry": "200ms", **settings})
    return Modbus("plc", config, clock=SystemClock())


class Reader:
    """Does what ingest does, and remembers what it was told."""

    def __init__(self, source: Modbus) -> None:
        self.source = source
        self.wrong: list[tuple[str, float]] = []
        self.reasons: set[Reason] = set()
        self.good = 0

    async def poll(self) -> bool:
        """One round; whether all of it was good."""
        try:
            if self.source._link is None:
                await self.source.connect()
            block = await self.source.read()
        except NotConnected:
            await self.source.close()
            await asyncio.sleep(0.02)
            return False
        return self.note(block)

    def note(self, block: Block) -> bool:
        names = [channel.id.partition(".")[2] for channel in self.source.channels]
        good = 0
        for each in block.samples:
            name = names[each["column"]]
            if each["quality"] != Quality.GOOD:
                self.reasons.add(Reason(each["reason"]))
            elif each["value"] == TRUTH[name]:
                good += 1
            else:
                self.wrong.append((name, float(each["value"])))
        self.good += good
        return good == len(TRUTH)


async def polled_through(kind: str, wire: Wired, fault: str, settings: Settings, keys: Settings) -> Reader:
    """Poll while it is broken, and until it is well again."""
    place = next(iter(wire.endpoints.values())).removeprefix("tcp://")
    reader = Reader(source_of(f"{kind}://{place}", **keys))
    try:
        for _ in range(5):
            if await reader.poll():
                break
        else:
            raise AssertionError("it is not well before anything was broken")
        loop = asyncio.get_running_loop()
        await wire.switch([wire.broken(f"modbus.{fault}", **settings)])
        until = loop.time() + BROKEN_S
        while loop.time() < until:
            await reader.poll()
        await wire.switch([])
        async with asyncio.timeout(MENDED_S):
            while not await reader.poll():
                pass
    finally:
        await reader.source.close()
    return reader


REASONS = {"silence": Reason.TIMEOUT, "crc": Reason.CHECKSUM, "half_frame": Reason.UNFITTING}
"""Which a fault must have given, among others, at least where it spares some answers."""


def test_every_fault_of_the_wire_is_tried():
    assert {kind.short for kind in FAULTS} == {fault for fault, _, _ in FAULTY}


@pytest.mark.parametrize("kind", ["tcp", "rtu", "ascii"])
async def test_no_good_value_is_wrong_whatever_happens_to_answers(kind, tmp_path):
    values = {f"panel.{name}": value for name, value in TRUTH.items()}

    async def tried(number: int, fault: str, settings: Settings, keys: Settings) -> str:
        place = {"port": 0} if kind == "tcp" else {"link": tmp_path / f"bus{number}"}
        async with serving(values, framing=kind, devices={"one": SLAVE}, **place) as wire:
            reader = await polled_through(kind, wire, fault, settings, keys)
        told = f"{fault} {dict(settings)} {dict(keys)}"
        if reader.wrong:
            return f"{told}: {reader.wrong[:3]}"
        if fault == "exception" and settings["code"] not in {"10", "11"}:
            wanted = Reason(100 + int(settings["code"]))
            return "" if wanted in reader.reasons else f"{told}: {reader.reasons}"
        if (
            kind != "tcp"
            and settings.get("every")
            and fault in REASONS
            and REASONS[fault] not in reader.reasons
        ):
            return f"{told}: {reader.reasons}"
        return ""

    told = await asyncio.gather(*(tried(number, *each) for number, each in enumerate(FAULTY)))
    assert [each for each in told if each] == []


async def test_a_wrong_checksum_is_told_at_once_and_nothing_is_connected_anew(tmp_path):
    channel = {"only": {"register": "input:0"}}
    async with serving({"panel.a": 1000.0}, framing="rtu", link=tmp_path / "bus", devices={"one": {
        "id": 1, "registers": {"only": {"register": "input:0", "channel": "panel.a"}},
    }}) as wire:  # fmt: skip
        document = {"type": "modbus", "url": f"rtu://{tmp_path / 'bus'}", "period": "20ms", "timeout": "2s"}
        source = Modbus("plc", Config.model_validate({**document, "channels": channel}), clock=SystemClock())
        try:
            await source.connect()
            await wire.switch([wire.broken("modbus.crc")])
            async with asyncio.timeout(PATIENCE_S):
                found = (await source.read()).samples
                assert [Reason(each) for each in found["reason"]] == [Reason.CHECKSUM]
                await wire.switch([])
                assert (await source.read()).samples["quality"].tolist() == [Quality.GOOD]
        finally:
            await source.close()
