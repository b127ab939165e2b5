import os
from contextlib import contextmanager

import pytest
import serial

from hw_sim.bench import Bench
from hw_sim.serial import SerialWire, encode


@pytest.fixture
async def wire(tmp_path):
    wire = SerialWire(Bench(1, ()), link=tmp_path / "vib")
    await wire.start()
    yield wire
    await wire.close()


@contextmanager
def reading(wire):
    with serial.Serial(wire.endpoint, 115200, timeout=0.5, exclusive=True) as port:
        yield port


def advance(wire, steps):
    for _ in range(steps):
        wire._bench.step()
        wire.step()


def decode(line):
    """The three values of a line, its checksum verified by hand."""
    text, _, checksum = line.removesuffix(b"\r\n").partition(b"*")
    expected = 0
    for byte in text:
        expected ^= byte
    assert checksum == f"{expected:02X}".encode()
    return [float(value) for value in text.split(b",")]


def test_a_line_is_three_values_and_a_checksum():
    assert encode(0.5, -1.25, 2.0) == b"0.5000,-1.2500,2.0000*32\r\n"


async def test_every_step_of_the_plant_is_one_line(wire):
    with reading(wire) as port:
        for _ in range(50):
            advance(wire, 1)
            now = wire._bench.readings
            assert decode(port.readline()) == pytest.approx([now[f"vib.{axis}"] for axis in "xyz"], abs=1e-4)


async def test_nothing_is_kept_for_a_reader_that_comes_later(wire):
    advance(wire, 5000)
    with reading(wire) as port:
        advance(wire, 1)
        now = wire._bench.readings
        assert decode(port.readline())[0] == pytest.approx(now["vib.x"], abs=1e-4)


async def test_a_reader_that_sleeps_holds_nobody_up(wire):
    with reading(wire) as port:
        advance(wire, 5000)
        port.reset_input_buffer()
        while port.in_waiting:
            port.read(port.in_waiting)
        advance(wire, 2)
        port.readline()  # its beginning was lost
        assert len(decode(port.readline())) == 3


async def test_one_reader_may_follow_another(wire):
    for _ in range(3):
        with reading(wire) as port:
            advance(wire, 1)
            assert len(decode(port.readline())) == 3


async def test_unplugged_the_reader_sees_a_hang_up_and_the_link_is_gone_until_it_is_plugged_in_again(wire):
    end = os.open(wire.endpoint, os.O_RDONLY | os.O_NOCTTY)
    try:
        await wire.stop()
        await wire.stop()
        advance(wire, 1)
        assert os.read(end, 10) == b""
    finally:
        os.close(end)
    assert not wire._link.is_symlink()
    await wire.start()
    with reading(wire) as port:
        advance(wire, 1)
        assert len(decode(port.readline())) == 3


async def test_a_dangling_link_of_an_earlier_run_is_replaced(tmp_path):
    link = tmp_path / "vib"
    link.symlink_to("/dev/pts/no-more")
    wire = SerialWire(Bench(1, ()), link=link)
    await wire.start()
    assert link.exists()
    await wire.close()
    assert not link.is_symlink()


async def test_a_file_under_the_links_name_is_left_alone(tmp_path):
    file = tmp_path / "vib"
    file.write_text("precious")
    wire = SerialWire(Bench(1, ()), link=file)
    with pytest.raises(FileExistsError, match="left alone"):
        await wire.start()
    await wire.close()
    assert file.read_text() == "precious"
