"""What `dxad sniff serial:///dev/…` makes of the bytes on a line, and at which rate it hears them."""

import asyncio
import json
import os
import random
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dxad.commissioning import Patience
from dxad.commissioning.bauds import LineSetting, heard
from dxad.commissioning.framings import best_cut
from dxad.commissioning.seriallisten import rates, search
from dxad.errors import ConfigError
from hw_sim.scenario import load
from hw_sim.serial.uart import misread
from hw_sim.station import station
from tests.peers import Pty
from tests.unit.commissioning.bench import Silent, accepted, dxad

SHAPES = {
    "line": ("line", {"kind": "xor"}, "csv"),
    "delimiter": ("delimiter", {"kind": "crc16-modbus"}, "key_value"),
    "fixed": ("fixed", {"kind": "sum16"}, "binary"),
    "length": ("length", {"kind": "crc16-ccitt"}, "binary"),
    "cobs": ("cobs", {"kind": "crc32"}, "binary"),
    "slip": ("slip", {"kind": "crc8"}, "json"),
    "nmea": ("line", None, "nmea"),
}
"""By wire of the simulator: framing, checksum and decoder."""


@asynccontextmanager
async def shapes(folder, *names):
    """The simulator's serial lines; yields their links."""
    settings = [f"wires.{name}.link={folder / name}" for name in names]
    settings += [f"wires.{name}.devices.{name}.period=20ms" for name in names]
    scenario = load("shapes", settings)
    scenario = replace(scenario, wires={name: scenario.wires[name] for name in names})
    async with station(scenario, *scenario.bench()) as running:
        stepping = asyncio.create_task(running.run([], duration_s=None))
        try:
            yield running
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])


async def test_every_framing_is_found_and_check_takes_what_is_proposed(tmp_path):
    async with shapes(tmp_path, *SHAPES) as running:
        ends = {name: os.open(tmp_path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) for name in SHAPES}
        try:
            done = await dxad("sniff", f"serial://{tmp_path / 'cobs'}", "--for=700ms", "--json", "--name=x")
            data = {name: os.read(end, 65_536) for name, end in ends.items() if name != "cobs"}
        finally:
            for end in ends.values():
                os.close(end)
        await running.break_("serial.wrong_baud", {"device": "nmea"})
        wrong = await dxad("sniff", f"serial://{tmp_path / 'nmea'}", "--for=300ms")
    found = json.loads(done.out)
    assert done.code == 0, done.err
    assert found["pseudo_terminal"]
    assert "no rate is searched for" in done.err
    (x,) = accepted(found["fragment"], tmp_path).sources.values()
    assert (x.framing.kind, x.checksum.kind, x.decode.format) == ("cobs", "crc32", "<hh")
    assert x.period == 20_000_000
    for name, each in data.items():
        cut = best_cut(each)
        assert cut is not None, name
        assert (cut.framing["kind"], cut.checksum, cut.payload.kind) == SHAPES[name]
    assert "no message is to be found" in wrong.err or "nothing proves that" in wrong.err


def lines(number=40, dice=random.Random(1)):  # noqa: B008 - the same each time
    return b"".join(b"%.3f;%.2f\r\n" % (20 + dice.random(), 900 + dice.random()) for _ in range(number))


class Line:
    """A device that sends at a rate of its own, as ports of other rates hear it."""

    def __init__(self, baudrate, data, *, refused=()):
        self.tried = []
        self._baudrate = baudrate
        self._data = data
        self._refused = refused

    def __call__(self, setting, into):
        self.tried.append(setting.baudrate)
        if setting.baudrate in self._refused:
            raise ConfigError("the port has no such rate")
        seen = misread(self._data, setting.baudrate / self._baudrate)
        into.take(seen * (1200 // len(seen) + 1))
        return self

    def close(self):
        """Nothing is open."""


@pytest.mark.parametrize("baudrate", [19_200, 57_600])
async def test_the_rate_is_the_one_at_which_messages_make_sense(baudrate):
    line = Line(baudrate, lines(), refused=(115_200,))
    found = await search(line, rates(None, parity=True), patience=Patience(20), watcher=Silent())
    assert found is not None
    assert found.setting == LineSetting(baudrate)
    assert found.cut is not None
    assert found.cut.payload.decode == {"kind": "csv", "columns": ["c1", "c2"], "separator": ";"}
    assert line.tried[-1] == baudrate, "the search ends there"


@pytest.mark.parametrize(("parity", "odd"), [("even", 0), ("odd", 1)])
def test_seven_bits_with_a_parity_are_told_by_the_eighth(parity, odd):
    sent = bytes(byte | (0x80 if byte.bit_count() % 2 != odd else 0) for byte in lines())
    found = heard(LineSetting(9600), sent)
    assert (found.setting.bytesize, found.setting.parity) == (7, parity)
    assert found.cut is not None
    assert found.cut.payload.kind == "csv"


def test_noise_makes_no_sense():
    dice = random.Random(3)
    assert best_cut(bytes(dice.randrange(256) for _ in range(4000))) is None
    assert best_cut(b"") is None
    assert heard(LineSetting(9600), b"\0\xff" * 3).worth == 0.0


def test_a_line_that_is_broken_now_and_then_is_known_all_the_same():
    whole = lines(200).split(b"\r\n")
    for place in range(5, len(whole), 20):
        whole[place] = whole[place][:4]
    cut = best_cut(b"\r\n".join(whole))
    assert cut is not None
    assert cut.payload.kind == "csv"


@pytest.mark.parametrize("size", range(1, 30, 5))
def test_no_bytes_are_too_odd(size):
    dice = random.Random(size)
    data = bytes(dice.choice(b"\0\n\xc0\xdb\x80\xff1,") for _ in range(40 * size))
    best_cut(data)


async def test_silence_and_an_absent_port_are_told(tmp_path):
    device = Pty(tmp_path / "mute")
    device.plug()
    try:
        mute = await dxad("sniff", f"serial://{device.link}", "--for=200ms")
    finally:
        device.unplug()
    assert (mute.code, "nothing came within 200ms" in mute.err) == (1, True)
    absent = await dxad("sniff", "serial:///dev/ttyNONE", "--for=200ms")
    assert (absent.code, "No such file" in absent.err) == (3, True)
    astray = await dxad("sniff", "serial://dev/ttyS0")
    assert (astray.code, "three slashes" in astray.err) == (2, True)


def test_a_device_that_says_the_same_all_the_time_proves_its_checksum_all_the_same():
    cut = best_cut(b"21.5,40*30\r\n" * 30)
    assert cut is not None
    assert (cut.checksum, cut.payload.kind) == ({"kind": "xor"}, "csv")
    assert cut.settings["checksum"] == "xor"
