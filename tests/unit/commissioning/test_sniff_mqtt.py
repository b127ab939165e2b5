"""What `dxad sniff mqtt://…` hears, and what it proposes."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dxad.commissioning.mqttfindings import mqtt_fragment
from dxad.commissioning.mqttlisten import broker_of
from dxad.commissioning.topics import Tally
from dxad.errors import ConfigError
from dxad.types import NS_PER_S
from hw_sim.ports import free_port as a_free_port
from hw_sim.scenario import load
from hw_sim.station import station
from tests.peers import publish
from tests.unit.commissioning.bench import accepted, dxad

LOGIN = ("--user", "gw", "--password-env", "MQTT_PASSWORD")
PASSWORD = {"MQTT_PASSWORD": "secret"}


@asynccontextmanager
async def shapes(folder):
    """The simulator's broker with a device for every payload; yields its ports."""
    scenario = load(
        "shapes", ["wires.broker.port=0", "wires.broker.tls_port=0", f"wires.broker.pki={folder}"]
    )
    scenario = replace(scenario, wires={"broker": scenario.wires["broker"]})
    async with station(scenario, *scenario.bench()) as running:
        stepping = asyncio.create_task(running.run([], duration_s=None))
        try:
            yield running.wires[0]._gate.ports
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])


async def test_every_payload_is_known_and_check_takes_what_is_proposed(tmp_path):
    async with shapes(tmp_path) as (plain, secured):
        where = f"mqtt://127.0.0.1:{plain}"
        done = await dxad("sniff", f"{where}/shapes/#", *LOGIN, "--for=1.1s", "--json", environment=PASSWORD)
        wrong = await dxad("sniff", where, *LOGIN, environment={"MQTT_PASSWORD": "guess"})
        untrusted = await dxad("sniff", f"mqtts://127.0.0.1:{secured}", *LOGIN, environment=PASSWORD)
        ca = ("--ca", tmp_path / "ca.pem", "--for=150ms", "-o", tmp_path / "f.toml")
        trusted = await dxad(
            "sniff", f"mqtts://127.0.0.1:{secured}/shapes/csv", *LOGIN, *ca, environment=PASSWORD
        )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    kinds = {each["topic"]: (each["kind"], each["samples"]) for each in found["topics"]}
    assert kinds == {
        "shapes/json": ("json", 1), "shapes/old": ("json", 1), "shapes/retained": ("json", 1),
        "shapes/batch": ("json", 20), "shapes/csv": ("csv", 1), "shapes/msgpack": ("msgpack", 1),
        "shapes/binary": ("binary", 1), "shapes/number": ("number", 1),
    }  # fmt: skip
    assert "shapes/csv" in done.err, "it is told while it comes"
    sources = accepted(found["fragment"], tmp_path).sources
    by_topic = {each.topic: each for each in sources.values()}
    assert by_topic["shapes/binary"].decode.format == ">dd"
    assert by_topic["shapes/batch"].time == "t"
    assert by_topic["shapes/batch"].period == 10_000_000
    assert by_topic["shapes/json"].period == 100_000_000
    assert set(by_topic["shapes/json"].channels) == {"current", "speed"}
    assert by_topic["shapes/json"].password.env == "MQTT_PASSWORD"
    assert (wrong.code, "BAD_USER_NAME_OR_PASSWORD" in wrong.err) == (3, True)
    assert (untrusted.code, "not to be trusted" in untrusted.err) == (3, True)
    assert trusted.code == 0, trusted.err
    (source,) = accepted((tmp_path / "f.toml").read_text(), tmp_path).sources.values()
    assert source.tls.ca == tmp_path / "ca.pem"
    assert trusted.out.count("secret") == 0


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed")
async def test_retained_numbers_of_a_broker_that_is_not_ours_are_one_source(tmp_path):
    port = a_free_port()
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "mosquitto", "-p", str(port), stdout=nowhere, stderr=nowhere
    )
    try:
        for _ in range(100):
            try:
                await publish(port, "plant/tank1/level", b"1.5", retain=True)
                break
            except OSError:
                await asyncio.sleep(0.02)
        await publish(port, "plant/tank2/level", b"2.5", retain=True)
        await publish(port, "plant/note", b"all is well", retain=True)
        where = f"mqtt://127.0.0.1:{port}"
        done = await dxad("sniff", where, "--for=300ms", "--name=tanks")
        old = await dxad("sniff", where, "--for=100ms", "--version=3.1.1", "--topics=1", "--json")
        nothing = await dxad("sniff", f"{where}/other/+", "--for=100ms")
    finally:
        process.terminate()
        await process.wait()
    assert done.code == 0, done.err
    (tanks,) = accepted(done.out[done.out.index("# nothing") :], tmp_path).sources.values()
    assert tanks.topic == "plant/{device}/{channel}"
    assert set(tanks.channel_sections()) == {"tank1.level", "tank2.level"}
    assert "nothing can be read of plant/note: text" in done.out
    assert "a guess: no two messages came" in done.out
    assert json.loads(old.out)["messages_without_room"] == 2
    assert nothing.code == 1
    assert "nothing came on other/+ within 100ms" in nothing.err


def test_a_topic_filter_is_no_fragment_of_the_url():
    broker = broker_of("mqtts://[::1]/plant/+/#")
    assert (broker.host, broker.port, broker.filter, broker.url) == (
        "::1",
        8883,
        "plant/+/#",
        "mqtts://[::1]:8883",
    )
    assert broker_of("mqtt://h").filter == "#"


@pytest.mark.parametrize("url", ["mqtt://", "mqtt://u@h", "mqtt://h:0", "mqtt://h:x", "amqp://h"])
def test_what_is_no_broker_is_told(url):
    with pytest.raises(ConfigError):
        broker_of(url)


async def test_nobody_there_is_told_by_the_exit_status(free_port):
    done = await dxad("sniff", f"mqtt://127.0.0.1:{free_port}")
    assert (done.code, "Connection refused" in done.err) == (3, True)


def heard(**topics):
    """What came: by topic, its payloads."""
    tally = Tally(topics_most=1000, bytes_most=2**20)
    for place, (topic, payloads) in enumerate(topics.items()):
        for number, payload in enumerate(payloads):
            tally.message(topic, payload, retained=False, now=number + place / 1000)
    return mqtt_fragment("m", "mqtt://h:1", {}, tally.judged(), version="5")


def test_topics_that_share_a_shape_are_one_source_with_a_template(tmp_path):
    text = heard(
        **{
            f"plant/pump{pump}/{channel}": [b"1.5", b"%d" % pump, b"2.5"]
            for pump in (1, 2, 3)
            for channel in ("flow", "power")
        }
    )
    ((name, source),) = accepted(text, tmp_path).sources.items()
    assert (name, source.topic) == ("m", "plant/{device}/{channel}")
    assert source.devices == {f"pump{pump}": f"plant/pump{pump}".split("/")[1] for pump in (1, 2, 3)}
    assert set(source.channels) == {"flow", "power"}
    assert source.period == NS_PER_S
    assert "# 1 to 3" in text, "of all devices"
    assert source.filters()[0] == "plant/pump1/flow"


def test_each_kind_of_payload_has_its_own_template_and_what_is_alone_its_own_source(tmp_path):
    document = [b'{"t": 20.5, "rh": 40}', b'{"t": 21.5, "rh": 41}']
    text = heard(
        **{
            "site/hall 1/state": document, "site/hall 2/state": document, "site/hall 3/state": [b'{"p": 1}'],
            "site/hall 1/door": [b"0", b"1"], "site/hall 2/door": [b"1", b"0"],
            "other": [b"7", b"8"], "site/hall 1/note": [b"shut", b"open"],
        }
    )  # fmt: skip
    sources = accepted(text, tmp_path).sources
    assert {each.topic for each in sources.values()} == {
        "site/{device}/state", "site/hall 3/state", "site/{device}/{channel}", "other",
    }  # fmt: skip
    halls = next(each for each in sources.values() if each.topic == "site/{device}/state")
    assert halls.devices == {"hall_1": "hall 1", "hall_2": "hall 2"}
    assert set(halls.channel_sections()) == {
        f"hall_{hall}.{channel}" for hall in (1, 2) for channel in ("t", "rh")
    }
    assert "nothing can be read of site/hall 1/note: text" in text


def test_a_device_that_has_little_of_what_the_others_have_is_none_of_them(tmp_path):
    topics = {f"p/{device}/{channel}": [b"1", b"2"] for device in "abc" for channel in "uvwx"}
    del topics["p/c/x"]  # which may be sent seldom
    topics |= {"p/gateway/load": [b"1", b"2"], "p/gateway/disk": [b"1", b"2"]}
    sources = accepted(heard(**topics), tmp_path).sources
    template = next(each for each in sources.values() if each.topic)
    assert (template.topic, list(template.devices)) == ("p/{device}/{channel}", ["a", "b", "c"])
    (rest,) = [each for each in sources.values() if not each.topic]
    assert {each.topic for each in rest.channels.values()} == {"p/gateway/load", "p/gateway/disk"}
