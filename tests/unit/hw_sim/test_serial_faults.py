"""Every fault of the serial wire, on and off, as its readers see it."""

import functools
import operator
import os
import re
import time
from pathlib import Path

import pytest
import serial

from hw_sim.serial.faults import FAULTS
from tests.unit.hw_sim.rig import counting
from tests.unit.hw_sim.seriallink import FIELDS, answer, fault, opened, plugged, read, steps

STEPS = 200
MINE = re.compile(rb"\$MINE,(\d+),0\*[0-9A-F]{2}\r\n")
LINE = re.compile(rb"(\d+),(\d+)\*([0-9A-F]{2})\r\n")


@pytest.fixture
def link(tmp_path):
    return tmp_path / "dev"


def good(data):
    """The counts of the lines in there whose checksum is right."""
    return [
        int(line[1])
        for line in LINE.finditer(data)
        if int(line[3], 16) == functools.reduce(operator.xor, line[0].partition(b"*")[0])
    ]


def counts_since(begin):
    return list(range(begin + 1, begin + STEPS + 1))


def frames_since(begin):
    """What was due since then."""
    lines = [b"%d,0" % count for count in counts_since(begin)]
    return [b"%s*%02X\r\n" % (line, functools.reduce(operator.xor, line)) for line in lines]


def nothing(data, begin, hit):
    assert data == b""
    assert hit in {1, STEPS}


def halves(data, begin, hit):
    assert hit == STEPS
    assert len(good(data)) < 5
    ends = {0}
    for frame in frames_since(begin):
        sizes = range(1, len(frame))
        ends = {at + size for at in ends for size in sizes if data.startswith(frame[:size], at)}
    assert len(data) in ends, "all of it is the beginnings of frames, one after the other"
    assert len(data) == pytest.approx(sum(map(len, frames_since(begin))) / 2, rel=0.2)


def merged(data, begin, hit):
    assert hit == STEPS
    assert data == b"".join(frame.removesuffix(b"\r\n") for frame in frames_since(begin))


def wrong_checksums(data, begin, hit):
    assert hit == STEPS / 4
    assert [int(line[1]) for line in LINE.finditer(data)] == counts_since(begin), "each frame is there"
    assert sorted(set(counts_since(begin)) - set(good(data))) == counts_since(begin)[::4]


def fewer_bytes(data, begin, hit):
    assert hit == STEPS
    sent = b"".join(frames_since(begin))
    assert len(data) == pytest.approx(0.9 * len(sent), rel=0.05)
    rest = iter(sent)
    assert all(byte in rest for byte in data), "what is left stands in its order"


def flipped_bits(data, begin, hit):
    assert hit == STEPS
    sent = b"".join(frames_since(begin))
    assert len(data) == len(sent)
    changed = [one ^ other for one, other in zip(data, sent, strict=True) if one != other]
    assert len(changed) == pytest.approx(0.1 * len(sent), rel=0.3)
    assert all(bits.bit_count() == 1 for bits in changed)


def random_bytes(data, begin, hit):
    assert hit == STEPS
    assert len(data) == sum(map(len, frames_since(begin))), "at the rate of the frames"
    assert good(data) == []
    assert len(set(data)) > 200


def misread(data, begin, hit):
    assert hit == STEPS
    assert good(data) == []
    sent = sum(map(len, frames_since(begin)))
    assert 0.3 * sent < len(data) < 0.7 * sent, "two bytes of the sender pass for one"
    assert 0 in data, "framing errors"


def log_lines(data, begin, hit):
    assert hit == STEPS / 2
    assert good(data) == counts_since(begin), "each frame is whole"
    others = [line for line in data.splitlines(keepends=True) if not LINE.fullmatch(line)]
    assert len(others) == STEPS / 2
    assert all(re.fullmatch(rb"I \(\d+\) sensor: .* degC\r\n", line) for line in others)


def too_long(data, begin, hit):
    assert hit == STEPS / 20
    lines = data.splitlines()
    assert len(lines) == STEPS
    long = [line for line in lines if len(line) > 300]
    assert [int(line.partition(b",")[0]) for line in long] == counts_since(begin)[::20]
    assert all(line.count(b"x") == 300 for line in long)


def twice(data, begin, hit):
    assert hit == STEPS / 2
    assert good(data) == sorted(counts_since(begin) + counts_since(begin)[::2])


def torn_and_many(data, begin, hit):
    assert hit == STEPS
    found = good(data)
    assert len(found) > STEPS
    assert max(found.count(count) for count in set(found)) == 100
    assert len(data) < 100 * sum(map(len, frames_since(begin))), "the line cannot take them all"


SEEN = {
    "stall": ({}, nothing),
    "half_frames": ({}, halves),
    "merged": ({}, merged),
    "checksum": ({"every": "4"}, wrong_checksums),
    "dropped": ({"share": "0.1"}, fewer_bytes),
    "bit_errors": ({"share": "0.1"}, flipped_bits),
    "noise": ({}, random_bytes),
    "wrong_baud": ({"ratio": "0.5"}, misread),
    "chatter": ({"every": "2"}, log_lines),
    "overlong": ({"every": "20", "size": "300"}, too_long),
    "repeated": ({"every": "2"}, twice),
    "flood": ({}, torn_and_many),
}
"""By fault, its parameters, and what a reader sees of it."""
ELSEWHERE = {"unplug", "bursts"}
"""Faults that have tests of their own, below."""


def test_each_row_of_the_catalogue_is_switched_by_a_test():
    assert {kind.short for kind in FAULTS} == set(SEEN) | ELSEWHERE
    assert all(kind.wire == "serial" and "wire" in kind.parameters for kind in FAULTS)


@pytest.mark.parametrize("name", SEEN)
async def test_a_reader_sees_what_the_fault_does_and_all_is_well_after_it(link, name):
    parameters, seen = SEEN[name]
    async with plugged(link, checksum="xor") as wire:
        with opened(link) as end:
            steps(wire, STEPS)
            assert good(read(end)) == counts_since(0), "before it"
            await wire.switch([fault(wire, f"serial.{name}", **parameters)])
            steps(wire, STEPS)
            seen(read(end), STEPS, wire.counts[f"serial.{name}"])
            hits = wire.counts[f"serial.{name}"]
            await wire.switch([])
            steps(wire, STEPS)
            assert good(read(end)) == counts_since(2 * STEPS), "after it"
            assert wire.counts[f"serial.{name}"] == hits


@pytest.mark.parametrize("name", SEEN)
async def test_a_fault_of_one_device_leaves_the_others_alone(link, name):
    device = {"fields": FIELDS, "decimals": 0}
    devices = {
        "mine": device | {"framing": {"kind": "nmea", "talker": "MINE"}},
        "other": device | {"checksum": "xor"},
    }
    async with plugged(link, devices=devices) as wire:
        with opened(link) as end:
            steps(wire, 5)
            whole = read(end)
            await wire.switch([fault(wire, f"serial.{name}", device="other", **SEEN[name][0])])
            steps(wire, 5)
            data = read(end)
    assert [int(line[1]) for line in MINE.finditer(whole)] == [1, 2, 3, 4, 5]
    assert [int(line[1]) for line in MINE.finditer(data)] == [6, 7, 8, 9, 10]
    assert good(MINE.sub(b"", whole)) == [1, 2, 3, 4, 5]
    assert LINE.sub(b"", MINE.sub(b"", data)) != b"" or good(MINE.sub(b"", data)) != [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("framing", "merged"),
    [
        ({"kind": "cobs"}, b"\x041,0\x042,0"),
        ({"kind": "slip"}, b"1,02,0"),
        ({"kind": "length", "sync": "<"}, b"1,02,0"),
        ({"kind": "delimiter", "delimiter": ";"}, b"1,02,0"),
        ({"kind": "fixed", "size": 4}, b"1,02,0"),
    ],
)
async def test_frames_of_each_framing_run_into_each_other(link, framing, merged):
    async with plugged(link, framing=framing) as wire:
        await wire.switch([fault(wire, "serial.merged")])
        with opened(link) as end:
            steps(wire, 2)
            assert read(end) == merged


BINARY = ({"kind": "cobs"}, {"kind": "slip"}, {"kind": "length", "size": 2}, {"kind": "fixed", "size": 8})


@pytest.mark.parametrize("framing", BINARY, ids=operator.itemgetter("kind"))
async def test_a_checksum_of_bytes_is_wrong_as_well(link, framing):
    devices = {
        "dev": {"fields": {"p": "pain"}, "framing": framing, "checksum": "crc16-modbus", "decimals": 0}
    }
    async with plugged(link, devices=devices) as wire:
        with opened(link) as end:
            steps(wire, 1)
            right = read(end)
            await wire.switch([fault(wire, "serial.checksum")])
            steps(wire, 1)
            wrong = read(end)
    assert right != wrong
    assert right.partition(b"0")[0] == wrong.partition(b"0")[0]


@pytest.mark.parametrize("framing", BINARY, ids=operator.itemgetter("kind"))
async def test_an_overlong_frame_is_so_in_each_framing(link, framing):
    async with plugged(link, framing=framing) as wire:
        await wire.switch([fault(wire, "serial.overlong", size="500")])
        with opened(link) as end:
            steps(wire, 1)
            assert read(end).count(b"x") == 500


async def test_the_same_seed_breaks_the_same_frames_in_the_same_way(tmp_path):
    seen = []
    for turn in range(2):
        async with plugged(tmp_path / str(turn), checksum="xor", bench=counting()) as wire:
            with opened(wire._tty.link) as end:
                await wire.switch([fault(wire, "serial.half_frames", every="3"), fault(wire, "serial.noise")])
                steps(wire, 50)
                seen.append(read(end))
    assert seen[0] == seen[1] != b""


async def test_a_flood_starves_nobody(link):
    async with plugged(link, checksum="xor") as wire:
        with opened(link):
            await wire.switch([fault(wire, "serial.flood", times="10000")])
            begin = time.process_time()
            steps(wire, 100)
            assert time.process_time() - begin < 1.0, "10 ms of a step at the most"


async def test_bursts_hold_the_frames_back_and_bring_them_all_at_once(link):
    async with plugged(link, checksum="xor") as wire:
        with opened(link) as end:
            steps(wire, 10)
            assert good(read(end)) == list(range(1, 11))
            await wire.switch([fault(wire, "serial.bursts", every="500ms")])
            steps(wire, 39)
            assert read(end) == b""
            steps(wire, 1)
            assert good(read(end)) == list(range(11, 51))
            steps(wire, 20)
            assert read(end) == b""
            await wire.switch([])
            steps(wire, 1)
            assert good(read(end)) == list(range(51, 72)), "what was held back is not lost"
    assert wire.counts["serial.bursts"] == 60
    assert wire.counts["lost"] == 0


# --- unplugged ---


def target(path):
    """Where a link leads, or None if it is not there."""
    return Path(path).readlink() if Path(path).is_symlink() else None


@pytest.mark.parametrize("returns", ["same", "another"])
async def test_unplugged_its_readers_see_a_hang_up_and_it_comes_back_as_another_terminal(link, returns):
    async with plugged(link, checksum="xor") as wire:
        for turn in (1, 2):
            at = wire.endpoints["dev"]
            terminal = target(at)
            with serial.Serial(at, 115200, timeout=0.2, exclusive=True) as port:
                steps(wire, 1)
                assert good(port.readline())
                await wire.switch([fault(wire, "serial.unplug", link=returns)])
                assert target(at) is None
                steps(wire, 3)
                assert os.read(port.fileno(), 100) == b"", "the end"
            assert target(at) is None
            await wire.switch([])
            back = wire.endpoints["dev"]
            assert back == (str(link) if returns == "same" else f"{link}-{turn}")
            assert target(back) not in {None, terminal}
            assert [each.name for each in link.parent.iterdir()] == [back.rpartition("/")[2]]
            with opened(back) as end:
                steps(wire, 2)
                assert len(good(read(end))) == 2
    assert wire.counts["serial.unplug"] == 2
    assert wire.counts["lost"] == 6
    assert list(link.parent.iterdir()) == []


async def test_a_run_as_fast_as_its_wires_does_not_wait_for_one_that_is_unplugged(link):
    async with plugged(link) as wire:
        await wire.switch([fault(wire, "serial.unplug")])
        await wire.ready()
        steps(wire, 2)
        await wire.ready()


@pytest.mark.parametrize("name", ["stall", "noise", "half_frames"])
async def test_the_answers_of_a_device_that_is_asked_break_as_well(link, name):
    async with plugged(link, query="?\n", error="ERR\n") as wire:
        with opened(link) as end:
            assert await answer(end, b"?\n") == b"0,0\r\n"
            await wire.switch([fault(wire, f"serial.{name}")])
            assert await answer(end, b"?\n", 0.03) != b"0,0\r\n"
            if name == "stall":
                assert await answer(end, b"!\n", 0.03) == b""
            await wire.switch([])
            assert await answer(end, b"?\n") == b"0,0\r\n"


async def test_an_instrument_that_was_unplugged_answers_again(link):
    async with plugged(link, query="?\n") as wire:
        with opened(link) as end:
            os.write(end, b"half a request")
            await wire.switch([fault(wire, "serial.unplug")])
            assert read(end, 0.01) == b""
        await wire.switch([])
        with opened(link) as end:
            assert await answer(end, b"?\n") == b"0,0\r\n"


async def test_a_device_without_power_is_unplugged(link):
    async with plugged(link) as wire:
        with opened(link) as end:
            await wire.switch([fault(wire, "source_down", device="dev")])
            assert not link.is_symlink()
            assert read(end) == b""
        await wire.switch([])
        with opened(link) as end:
            steps(wire, 1)
            assert read(end) == b"1,0\r\n"


async def test_a_device_without_power_beside_others_is_silent(link):
    devices = {
        name: {"fields": {name: "count"}, "payload": "key_value", "decimals": 0} for name in ("a", "b")
    }
    async with plugged(link, devices=devices) as wire:
        with opened(link) as end:
            a_off = fault(wire, "source_down", device="a")
            await wire.switch([a_off])
            steps(wire, 1)
            assert read(end) == b"b=1\r\n"
            await wire.switch([a_off, fault(wire, "source_down", device="b")])
            assert read(end, 0.01) == b""
            assert not link.is_symlink(), "with nobody on it, the adapter has no power either"
        await wire.switch([a_off])
        with opened(link) as end:
            steps(wire, 1)
            assert read(end) == b"b=2\r\n"
