"""Every shape of device that `hw_sim run shapes` has, read by clients that this project did not write.

All sensors are stuck, so that each wire must show the same numbers, which `ctl status` tells.
"""

import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import time
import tomllib
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest

from hw_sim.control import ControlError, ask
from tests.patience import PATIENCE_S
from tests.system.test_opcua_clients import ALL, MODULES, NODE

ROOT = Path(__file__).parents[2]
WIRES = tomllib.loads((ROOT / "hw_sim/scenarios/shapes.toml").read_text())["wires"]
SERIAL = [name for name, wire in WIRES.items() if wire["type"] == "serial"]


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@dataclass
class Stage:
    """The simulator, and what its sensors show for good."""

    folder: Path
    ports: dict[str, int]
    readings: dict[str, float]

    def link(self, wire):
        return self.folder / Path(WIRES[wire]["link"]).name

    def shows(self, wire, device, key="fields"):
        """By field, what a client of this device should find."""
        return {name: self.readings[channel] for name, channel in WIRES[wire]["devices"][device][key].items()}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s")
    settings = [f"wires.{name}.pki={folder / name}" for name in ("broker", "server")]
    channels = sorted(set(re.findall(r'"((?:motor|plc|drive|vib)\.\w+)"', json.dumps(WIRES))))
    command = [
        sys.executable, "-m", "hw_sim", "run", "shapes", "--json", "--any-port", "--links", folder,
        "--labels", os.devnull,
        "--control", folder / "c", *(f"--set={each}" for each in settings),
        *(f"--fault=stuck@20ms:channel={each}" for each in channels),
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            endpoints = json.loads(child.stdout.readline())
            at = {
                "broker": "json",
                "tls": "broker_tls",
                "tcp": "types",
                "gateway": "behind",
                "server": "skid",
            }
            ports = {name: int(re.search(r":(\d+)", endpoints[device])[1]) for name, device in at.items()}
            yield Stage(folder, ports, _frozen(folder / "c"))
            ask(folder / "c", do="stop")
            assert child.wait(timeout=PATIENCE_S) == 0
        finally:
            child.kill()


def _frozen(control):
    """The readings, once all are stuck."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = ask(control, do="status")
        if found["t_s"] > 0.1:
            return found["readings"]
        time.sleep(0.02)
    raise ControlError("the plant does not step")


def run(*command, timeout=PATIENCE_S, code=0):
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


# --- MQTT, by mosquitto_sub -----------------------------------------------------------------------------


def subscribed(stage, device, *options, count=1, port="broker"):
    """The payloads of the next messages of a device."""
    topic = WIRES["broker"]["devices"][device]["topic"]
    login = ["-u", "gw", "-P", "secret"]
    where = ["-h", "127.0.0.1", "-p", stage.ports[port], "-t", topic, "-C", count, "-W", 8]
    told = run("mosquitto_sub", *where, *login, "-F", "%x", *options)
    return [bytes.fromhex(line) for line in told.splitlines()]


@needs("mosquitto_sub")
@pytest.mark.parametrize("version", ["5", "311"])
@pytest.mark.parametrize("port", ["broker", "tls"])
def test_mqtt_is_read_in_both_versions_with_tls_and_without(stage, version, port):
    trust = ["--cafile", stage.folder / "broker" / "ca.pem"] if port == "tls" else []
    (payload,) = subscribed(stage, "json", "-V", version, *trust, port=port)
    found = json.loads(payload)
    assert found.pop("ts") == pytest.approx(time.time(), abs=5)
    assert found == pytest.approx(stage.shows("broker", "json"), abs=1e-4)


@needs("mosquitto_sub")
@pytest.mark.parametrize("version", ["5", "311"])
def test_mqtt_refuses_a_wrong_password_in_words(stage, version):
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(stage.ports["broker"]), "-u", "gw", "-P", "no"]
    done = subprocess.run(
        [*command, "-t", "#", "-V", version], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode != 0
    assert re.search("not authori[sz]ed|bad user", done.stdout + done.stderr, re.IGNORECASE)


@needs("mosquitto_sub")
def test_mqtt_shows_every_payload(stage):
    def shows(device):
        return pytest.approx(stage.shows("broker", device), abs=1e-4)

    assert json.loads(subscribed(stage, "old")[0]) == shows("old")
    assert msgpack.unpackb(subscribed(stage, "msgpack")[0]) == shows("msgpack")
    flow, pressure = stage.shows("broker", "csv").values()
    csv = [float(cell) for cell in subscribed(stage, "csv")[0].decode().split(",")]
    assert csv == pytest.approx([flow, pressure], abs=1e-4)
    assert struct.unpack(">dd", subscribed(stage, "binary")[0]) == (flow, pressure)
    (power,) = stage.shows("broker", "number").values()
    assert float(subscribed(stage, "number")[0]) == pytest.approx(power, abs=1e-4)
    batch = json.loads(subscribed(stage, "batch")[0])
    assert len(batch) == 20
    times = [sample.pop("t") for sample in batch]
    assert [after - before for before, after in pairwise(times)] == pytest.approx([0.01] * 19, abs=1e-4)
    assert all(sample == shows("batch") for sample in batch)


@needs("mosquitto_sub")
def test_mqtt_keeps_what_was_retained(stage):
    subscribed(stage, "retained")
    topic = WIRES["broker"]["devices"]["retained"]["topic"]
    told = run(
        "mosquitto_sub", "-h", "127.0.0.1", "-p", stage.ports["broker"], "-u", "gw", "-P", "secret",
        "-t", topic, "-C", 1, "-W", 8, "-F", "%r %p",
    )  # fmt: skip
    flag, _, payload = told.partition(" ")
    assert flag == "1", "the first that comes is an old one"
    assert json.loads(payload) == pytest.approx(stage.shows("broker", "retained"), abs=1e-4)


# --- Modbus, by mbpoll ----------------------------------------------------------------------------------

MBPOLL = ("mbpoll", "-0", "-1", "-q")
RTU = ("-m", "rtu", "-b", 115200, "-P", "none", "-o", "0.5")


def polled(*options):
    """What mbpoll shows, in its order."""
    told = run(*MBPOLL, *options)
    return re.findall(r"^\[\d+\]:\s+(\S+)", told, re.MULTILINE)


def decoded(raw, encoding, order):
    """Registers as they are on the wire, most significant byte first in each, as one number."""
    words = [raw[at : at + 2] for at in range(0, len(raw), 2)]
    if order in {"BADC", "DCBA"}:
        words = [word[::-1] for word in words]
    if order in {"CDAB", "DCBA"}:
        words.reverse()
    letters = {"int": "hiq", "uint": "HIQ", "float": "efd"}
    kind, bits = re.fullmatch(r"(u?int|float)(\d+)", encoding).groups()
    letter = letters[kind][{"16": 0, "32": 1, "64": 2}[bits]]
    return struct.unpack(f">{letter}", b"".join(words))[0]


@needs("mbpoll")
def test_modbus_tcp_shows_every_type_in_every_order(stage):
    registers = WIRES["tcp"]["devices"]["types"]["registers"]
    inputs = {name: each for name, each in registers.items() if each["register"].startswith("input:")}
    tcp = ("-m", "tcp", "-p", stage.ports["tcp"], "-a", 1)
    raw = b"".join(
        int(each, 16).to_bytes(2, "big")
        for each in polled(*tcp, "-t", "3:hex", "-r", 0, "-c", 84, "127.0.0.1")
    )
    seen = set()
    for name, each in inputs.items():
        first, size = int(each["register"].partition(":")[2]), int(re.search(r"\d+$", each["encoding"])[0])
        number = decoded(raw[2 * first : 2 * first + size // 8], each["encoding"], each["order"])
        scale = each.get("scale", 1.0)
        least = {"float16": 2e-3, "float32": 1e-4, "float64": 0.0}.get(each["encoding"], scale / 2 + 1e-9)
        assert number * scale == pytest.approx(stage.readings[each["channel"]], abs=least), name
        seen.add((each["encoding"], each["order"]))
    assert len(seen) == 9 * 4
    speed = int(polled(*tcp, "-t", 3, "-r", 0, "-c", 1, "127.0.0.1")[0])
    assert 0.1 * speed == pytest.approx(stage.readings["motor.speed"], abs=0.05 + 1e-9)
    for option, order in (("-B", "abcd"), (None, "cdab")):
        for kind, name in (("float", "float32"), ("int", "int32"), ("int", "uint32")):
            at = int(registers[f"{name}_{order}"]["register"].partition(":")[2])
            where = (*tcp, *([option] if option else []), "-t", f"3:{kind}", "-r", at, "-c", 1, "127.0.0.1")
            scale = registers[f"{name}_{order}"].get("scale", 1.0)
            assert float(polled(*where)[0]) * scale == pytest.approx(stage.readings["plc.flow"], rel=1e-4)


@needs("mbpoll")
def test_modbus_tcp_shows_bits_bytes_and_text(stage):
    tcp = ("-m", "tcp", "-p", stage.ports["tcp"], "-a", 1)
    assert polled(*tcp, "-t", 0, "-r", 3, "-c", 1, "127.0.0.1") == ["1"]
    assert polled(*tcp, "-t", 1, "-r", 5, "-c", 1, "127.0.0.1") == ["1"]
    holding = polled(*tcp, "-t", "4:hex", "-r", 0, "-c", 22, "127.0.0.1")
    assert int(holding[0], 16) == 1 << 15 | 1
    text = b"".join(int(each, 16).to_bytes(2, "big") for each in holding[10:18])
    assert text.rstrip(b"\0 ") == b"pump skid 7"
    assert [int(each, 16) & 0xFF for each in holding[20:]] == [round(stage.readings["plc.valve"])] * 2


def _slaves(stage, line):
    """What three slaves on one line show, and one that is not there."""
    flow, valve = stage.readings["plc.flow"], stage.readings["plc.valve"]
    assert float(polled(*RTU, "-a", 1, "-t", "3:float", "-B", "-r", 30, "-c", 1, line)[0]) == pytest.approx(
        flow, rel=1e-5
    )
    assert int(polled(*RTU, "-a", 2, "-t", 4, "-r", 12, "-c", 1, line)[0]) == round(10 * valve)
    assert polled(*RTU, "-a", 3, "-t", 0, "-r", 0, "-c", 1, line) == ["1"]
    assert "timed out" in run(*MBPOLL, *RTU, "-a", 9, "-t", 4, "-r", 12, "-c", 1, line, code=1)
    assert int(polled(*RTU, "-a", 2, "-t", 4, "-r", 12, "-c", 1, line)[0]) == round(10 * valve)


@needs("mbpoll")
def test_three_modbus_slaves_share_a_line_beside_one_that_is_not_there(stage):
    _slaves(stage, stage.link("bus"))


@needs("mbpoll")
@needs("socat")
def test_modbus_rtu_goes_over_tcp(stage):
    line = stage.folder / "socat"
    command = ["socat", f"PTY,link={line},rawer", f"TCP:127.0.0.1:{stage.ports['gateway']}"]
    with subprocess.Popen(command) as bridge:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not line.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            found = polled(*RTU, "-a", 7, "-t", "3:float", "-B", "-r", 30, "-c", 1, line)
        finally:
            bridge.kill()
    assert float(found[0]) == pytest.approx(stage.readings["plc.flow"], rel=1e-5)


# --- terminals, by hand ---------------------------------------------------------------------------------


@contextmanager
def terminal(stage, wire):
    """Its descriptor, and what reads from it until a test is content."""
    line = os.open(stage.link(wire), os.O_RDWR | os.O_NOCTTY)

    def until(good, timeout_s=PATIENCE_S):
        data, deadline = b"", time.monotonic() + timeout_s
        while not (found := good(data)):
            assert time.monotonic() < deadline, data
            if select.select([line], [], [], 0.1)[0]:
                data += os.read(line, 4096)
        return found

    try:
        yield line, until
    finally:
        os.close(line)


def test_modbus_ascii_answers(stage):
    body = bytes([1, 3, 0, 12, 0, 1])
    with terminal(stage, "ascii") as (line, until):
        os.write(line, b":" + (body + bytes([-sum(body) & 0xFF])).hex().upper().encode() + b"\r\n")
        (answer,) = until(lambda data: re.fullmatch(rb":([0-9A-F]+)\r\n", data)).groups()
    raw = bytes.fromhex(answer.decode())
    assert sum(raw) & 0xFF == 0, "the LRC (Modbus over Serial Line V1.02, 2.5.2.2)"
    assert raw[:3] == bytes([1, 3, 2])
    assert int.from_bytes(raw[3:5], "big") == round(10 * stage.readings["plc.valve"])


def crc(data, width, polynomial, start, *, reflected):
    """Bit by bit (R. Williams, "A painless guide to CRC error detection algorithms")."""
    register, top = start, 1 << (width - 1)
    for byte in data:
        at = int(f"{byte:08b}"[::-1], 2) if reflected else byte
        register ^= at << (width - 8)
        for _ in range(8):
            register = (register << 1 ^ polynomial if register & top else register << 1) & ((1 << width) - 1)
    return int(f"{register:0{width}b}"[::-1], 2) if reflected else register


def xored(text):
    total = 0
    for byte in text:
        total ^= byte
    return total


def uncobs(frame):
    """Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999)."""
    out, at = b"", 0
    while at < len(frame):
        code = frame[at]
        out += frame[at + 1 : at + code] + (b"\0" if code < 0xFF else b"")
        at += code
    return out.removesuffix(b"\0")


def _line(data):
    found = re.search(rb"\r\n([^\r\n*]+)\*([0-9A-F]{2})\r\n", data)
    if found and int(found[2], 16) == xored(found[1]):
        return [float(cell) for cell in found[1].split(b",")]
    return None


def _delimiter(data):
    found = re.search(rb"\x1e([^\x1e*]+)\*([0-9A-F]{4})\x1e", data)
    if not found or int.from_bytes(bytes.fromhex(found[2].decode()), "little") != crc(
        found[1], 16, 0x8005, 0xFFFF, reflected=True
    ):
        return None
    pairs = dict(pair.split(b"=") for pair in found[1].split(b","))
    return [float(pairs[key]) for key in (b"flow", b"pressure")]


def _fixed(data):
    for at in range(max(0, len(data) - 9)):
        frame = data[at : at + 10]
        if int.from_bytes(frame[8:], "big") == sum(frame[:8]) and any(frame):
            return list(struct.unpack("<ff", frame[:8]))
    return None


def _length(data):
    for at in range(max(0, len(data) - 19)):
        size, body = int.from_bytes(data[at : at + 2], "big"), data[at + 2 : at + 18]
        check = crc(body, 16, 0x1021, 0xFFFF, reflected=False)
        if size == 16 and int.from_bytes(data[at + 18 : at + 20], "big") == check:
            return list(struct.unpack(">dd", body))
    return None


def _cobs(data):
    for frame in data.split(b"\0")[1:-1]:
        raw = uncobs(frame)
        if len(raw) == 8 and int.from_bytes(raw[4:], "big") == zlib.crc32(raw[:4]):
            return [0.1 * each for each in struct.unpack("<hh", raw[:4])]
    return None


def _slip(data):
    for frame in data.split(b"\xc0")[1:-1]:
        raw = frame.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
        if raw and raw[-1] == crc(raw[:-1], 8, 0x07, 0, reflected=False):
            return list(json.loads(raw[:-1]).values())
    return None


def _nmea(data):
    found = re.search(rb"\$PHWS,?([^*\r\n]+)\*([0-9A-F]{2})\r\n", data)
    if found and int(found[2], 16) == xored(found[0][1 : found[0].index(b"*")]):
        return [float(cell) for cell in found[1].split(b",")]
    return None


READS = {
    "line": (_line, 1e-4),
    "delimiter": (_delimiter, 1e-4),
    "fixed": (_fixed, 1e-4),
    "length": (_length, 0.0),
    "cobs": (_cobs, 0.05 + 1e-9),
    "slip": (_slip, 1e-4),
    "nmea": (_nmea, 1e-4),
}


@pytest.mark.parametrize("wire", READS)
def test_serial_frames_are_what_their_standard_says(stage, wire):
    decode, least = READS[wire]
    with terminal(stage, wire) as (_, until):
        found = until(decode)
    assert found == pytest.approx(list(stage.shows(wire, wire).values()), abs=least)


def test_an_instrument_answers_what_it_is_asked(stage):
    with terminal(stage, "asked") as (line, until):
        os.write(line, b"READ?\r\n")
        answer = until(lambda data: data if data.endswith(b"\r\n") else None)
        os.write(line, b"WHAT?\r\n")
        assert until(lambda data: data if data.endswith(b"\r\n") else None) == b"ERR\r\n"
    found = [float(cell) for cell in answer.split(b",")]
    assert found == pytest.approx(list(stage.shows("asked", "asked").values()), abs=1e-4)


def test_every_serial_wire_is_read():
    assert {*READS, "asked"} == set(SERIAL)


# --- OPC-UA, by node-opcua ------------------------------------------------------------------------------


@pytest.mark.skipif(NODE is None or not (MODULES / "node-opcua-client").is_dir(), reason="no node-opcua")
def test_opcua_shows_every_kind_by_every_policy_and_login(stage):
    nodes, shows, kinds = {}, {}, {}
    for device in WIRES["server"]["devices"].values():
        for name, each in device["nodes"].items():
            nodes[name] = [device["namespace"], each["node"]]
            shows[name], kinds[name] = stage.readings[each["channel"]], each["kind"]
    keys = stage.folder / "server"
    client = {"certificate": str(keys / "client.pem"), "key": str(keys / "client-key.pem")}
    place = {
        "endpoint": f"opc.tcp://127.0.0.1:{stage.ports['server']}/shapes",
        "pki": str(stage.folder / "visitor"), **client,
    }  # fmt: skip
    logins = (
        {},
        {"user": "gw", "password": "secret"},
        {"userCertificate": client["certificate"], "userKey": client["key"]},
    )
    visits = [
        {**place, "policy": policy, "mode": mode, **login, "nodes": nodes}
        for policy, modes in ALL.items()
        for mode in modes
        for login in logins
    ]
    visits[0]["history"] = "past"
    told = subprocess.run(
        [NODE, str(ROOT / "tests/system/opcua_client.cjs"), json.dumps(visits)],
        env={**os.environ, "NODE_PATH": str(MODULES)}, capture_output=True, text=True,
        timeout=PATIENCE_S, check=True,
    ).stdout  # fmt: skip
    found = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert len(found) == len(visits)
    newest = found[0]["history"][-1]  # what does not change is not written again
    assert (newest["value"], newest["type"]) == (shows["past"], kinds["past"])
    for visit in found:
        assert "error" not in visit, visit
        for name, each in visit["read"].items():
            assert (each["type"], each["status"]) == (kinds[name], "Good"), name
            value, expected = each["value"], shows[name]
            if kinds[name] in {"Double", "Float"}:
                wanted = [expected] * 8 if name == "array" else expected
                assert value == pytest.approx(wanted, rel=1e-6), name
            elif kinds[name] == "String":
                assert float(value) == pytest.approx(expected, rel=1e-5)
            else:
                assert value == round(expected), name
