"""What `dxad probe modbus` finds on the simulator's lines, and what it sends."""

import json
import re
import struct

import numpy as np
import pytest

from dxad.commissioning.registers import Expected, Run, guesses, matches, prevailing_order, tolerance_of
from tests.peers import listening
from tests.unit.commissioning.bench import accepted, dxad
from tests.unit.hw_sim.modbus_rig import serving

VALUES = {"one.a": 21.5, "one.b": 1450.0, "one.c": 7.25, "one.on": 1.0, "two.a": 99.0}
DEVICES = {
    "one": {
        "id": 1,
        "holes": "illegal",
        "registers": {
            "a": {"register": "input:30", "encoding": "float32", "order": "CDAB"},
            "b": {"register": "holding:50", "encoding": "int16"},
            "c": {"register": "holding:51", "encoding": "uint16", "scale": 0.01},
            "on": {"register": "coil:3"},
        },
    },
    "two": {"id": 2, "registers": {"a": {"register": "holding:12", "scale": 0.1}}},
}


def run_of(layout, *numbers):
    data = struct.pack(layout, *numbers)
    return Run(100, np.frombuffer(data, ">u2").astype(np.uint16))


async def test_it_finds_ids_ranges_and_values_and_proposes_what_check_takes(tmp_path):
    async with serving(VALUES, framing="tcp", port=0, devices=DEVICES) as wire:
        url = wire.endpoints["one"]
        done = await dxad(
            "probe",
            "modbus",
            url,
            "--ids",
            "1-4",
            "--range",
            "0-127",
            "--timeout",
            "100ms",
            "--delay",
            "1ms",
            "--json",
        )
    found = json.loads(done.out)
    assert done.code == 0, done.err
    one, two = found["devices"]
    assert (one["id"], two["id"]) == (1, 2)
    assert one["tables"]["input"]["ranges"] == [[30, 31]]
    assert one["tables"]["holding"]["ranges"] == [[50, 51]]
    assert one["tables"]["coil"]["ranges"] == [[3, 3]]
    assert one["tables"]["discrete"]["ranges"] == []
    (value,) = one["tables"]["input"]["values"]
    assert (value["address"], value["encoding"], value["order"], value["value"]) == (
        30,
        "float32",
        "CDAB",
        21.5,
    )
    config = accepted(found["fragment"], tmp_path)
    assert set(config.sources) == {"plc1", "plc2"}
    assert set(config.sources["plc1"].channel_sections()) == {"holding50", "holding51", "input30", "coil3"}
    assert config.sources["plc2"].device_id == 2


async def test_an_expected_value_is_found_with_its_type_order_and_scale(tmp_path):
    file = tmp_path / "plc.toml"
    async with serving(VALUES, framing="tcp", port=0, devices=DEVICES) as wire:
        url = wire.endpoints["one"]
        options = ["--ids", "1", "--range", "24-55", "--delay", "1ms", "-o", file, "--name", "press"]
        done = await dxad("probe", "modbus", url, *options, "--expect", "21.5", "--expect", "7.25")
    assert done.code == 0, done.err
    assert re.search(r"21\.5 +input:30 +float32 +CDAB +1 +21\.5", done.out)
    assert re.search(r"7\.25 +holding:51 +\w+ +ABCD +0\.01 +7\.25", done.out)
    assert "id 1 input: 30-31" in done.err, "it is told while it is seen"
    config = accepted(file.read_text(), tmp_path)
    (press,) = config.sources.values()
    assert [each.address for each in press.channels.values()] == ["input:30", "holding:51"]
    assert [each.scale for each in press.channels.values()] == [1.0, 0.01]


async def test_what_is_expected_and_not_there_is_a_failure():
    async with serving(VALUES, framing="tcp", port=0, devices=DEVICES) as wire:
        url = wire.endpoints["one"]
        done = await dxad("probe", "modbus", url, "--ids=1", "--range=24-55", "--delay=1ms", "--expect=-3.33")
    assert done.code == 1
    assert "nowhere" in done.out


async def test_a_terminal_is_probed_as_a_network(tmp_path):
    link = tmp_path / "bus"
    devices = {"two": {"id": 2, "registers": {"a": {"register": "holding:12", "scale": 0.1}}}}
    async with serving({"two.a": 99.0}, framing="rtu", link=link, devices=devices):
        url = f"rtu://{link}?baudrate=9600"
        options = ["--ids", "1-2", "--range", "0-63", "--timeout", "100ms", "--tables", "holding"]
        done = await dxad("probe", "modbus", url, *options, "--expect", "99", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["devices"][0]["expected"][0]["places"][0] == {
        "register": "holding:12", "encoding": "int16", "scale": 0.1, "value": 99.0, "oddness": 0.4,
    }  # fmt: skip
    assert accepted(found["fragment"], tmp_path).sources["plc"].url == url


async def test_only_the_four_reads_are_sent():
    sent = bytearray()

    async def refuse(reader, writer):
        while True:
            request = await reader.readexactly(12)
            sent.append(request[7])
            writer.write(request[:4] + b"\0\3" + request[6:7] + bytes((request[7] | 0x80, 2)))

    async with listening(refuse) as port:
        done = await dxad(
            "probe", "modbus", f"tcp://127.0.0.1:{port}", "--ids=1", "--range=0-15", "--delay=1ms"
        )
    assert done.code == 1, "there is nothing to configure"
    assert set(sent) == {1, 2, 3, 4}
    assert "nothing could be read" in done.out


async def test_nobody_there_is_told_by_the_exit_status(free_port):
    done = await dxad("probe", "modbus", f"tcp://127.0.0.1:{free_port}")
    assert done.code == 3
    assert "Connection refused" in done.err


async def test_a_device_that_never_answers_is_told_within_the_time():
    async def silence(reader, _writer):
        while await reader.read(1000):
            pass

    async with listening(silence) as port:
        done = await dxad(
            "probe", "modbus", f"tcp://127.0.0.1:{port}", "--for=1s", "--timeout=100ms", "--json"
        )
    assert done.code == 1
    assert json.loads(done.out)["devices"] == []
    assert "the time was enough for" in done.err


@pytest.mark.parametrize("url", ["http://x", "tcp://", "rtu://dev/ttyS0"])
async def test_a_url_that_is_none_is_a_mistake(url):
    done = await dxad("probe", "modbus", url)
    assert done.code == 2
    assert "is not" in done.err


ORDERS = {"ABCD": ">", "CDAB": ">", "BADC": "<", "DCBA": "<"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("letter", "encoding"), [("f", "float32"), ("d", "float64"), ("i", "int32")])
def test_every_order_of_bytes_is_found(order, letter, encoding):
    value = -70_123.0 if letter == "i" else 21.4837
    words = struct.pack(ORDERS[order] + letter, int(value) if letter == "i" else value)
    parts = [words[at : at + 2] for at in range(0, len(words), 2)]
    if order in {"CDAB", "BADC"}:
        parts.reverse()
    run = Run(7, np.frombuffer(b"\0\0" + b"".join(parts), ">u2").astype(np.uint16))
    (found,) = matches([run], [Expected(value, 0.001)])
    assert (found[0].address, found[0].encoding, found[0].order, found[0].scale) == (8, encoding, order, 1.0)


def test_several_expected_values_agree_on_their_order():
    run = run_of(">ffhh", 21.5, 99.25, 215, 993)
    found = matches([run], [Expected(21.5, 0.2), Expected(99.25, 0.5)])
    assert [(one[0].address, one[0].encoding) for one in found] == [(100, "float32"), (102, "float32")]


def test_floats_texts_and_integers_are_told_apart():
    run = run_of(">8sfhhf", b"PUMP-701", 21.5, 0, 1450, 3.25)
    assert prevailing_order([run]) == "ABCD"
    found = [(each.address, each.encoding, each.value) for each in guesses(run, "ABCD")]
    assert found == [
        (100, "string", "PUMP-701"), (104, "float32", 21.5), (107, "int16", 1450.0), (108, "float32", 3.25),
    ]  # fmt: skip


def test_a_tolerance_is_a_share_and_zero_has_one_too():
    assert tolerance_of(200.0, 1.0) == 2.0
    assert 0 < tolerance_of(0.0, 1.0) < 0.001
