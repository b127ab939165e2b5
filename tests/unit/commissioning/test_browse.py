"""What `dxad browse` shows of a server, and how it enters."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from asyncua import ua
from asyncua.ua import uaerrors

from dxad.commissioning.opcuabrowse import halved
from hw_sim.scenario import load
from hw_sim.station import station
from tests.peers import listening
from tests.unit.commissioning.bench import accepted, dxad

PASSWORD = {"OPCUA_PASSWORD": "secret"}
LOGIN = ("--user", "gw", "--password-env", "OPCUA_PASSWORD")


@asynccontextmanager
async def shapes(folder):
    """The simulator's server of all kinds, policies and logins; yields its url, and the server itself."""
    scenario = load("shapes", ["wires.server.port=0", f"wires.server.pki={folder}"])
    scenario = replace(scenario, wires={"server": scenario.wires["server"]})
    async with station(scenario, *scenario.bench()) as running:
        stepping = asyncio.create_task(running.run([], duration_s=None))
        try:
            yield running.wires[0].endpoints["skid"], running.wires[0]._server
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])


async def test_a_server_is_shown_whole_and_read_by_what_is_proposed(tmp_path):
    async with shapes(tmp_path / "pki") as (url, server):
        everything = await dxad("browse", url, "--json")
        secured = await dxad(
            "browse", url, "--security=Basic256Sha256", *LOGIN, "--match=*INT16", environment=PASSWORD
        )
        wrong = await dxad("browse", url, *LOGIN, "--json", environment={"OPCUA_PASSWORD": "guess"})
        below = await dxad("browse", url, "--under=numbers", "--name=x", "-o", tmp_path / "x.toml")
        astray = await dxad("browse", url, "--under=nowhere")
        await furnished(server)
        units = await dxad("browse", url, "--match=Line", "--json")
        few = await dxad("browse", url, "--nodes=3", "--json")
        flat = await dxad("browse", url, "--depth=1")
    found = json.loads(everything.out)
    assert everything.code == 0, everything.err
    ways = {(each["policy"], each["mode"]) for each in found["endpoints"]}
    assert ("none", "none") in ways
    assert ("Aes256_Sha256_RsaPss", "sign_and_encrypt") in ways
    assert {"anonymous", "user"} <= set(found["endpoints"][0]["logins"])
    kinds = {each["path"]: (each["type"], each["array"]) for each in found["variables"]}
    assert kinds["skid/double"] == ("Double", False)
    assert kinds["numbers/array"] == ("Double", True)
    past = next(each for each in found["variables"] if each["path"] == "skid/past")
    assert past["history"]
    assert past["node"] == "nsu=urn:hw-sim:shapes:skid;s=Past"
    (drive,) = accepted(found["fragment"], tmp_path).sources.values()
    assert drive.namespace == "urn:hw-sim:shapes:skid"
    assert {"double", "boolean", "scalar"} <= set(drive.channels)
    assert "string" not in drive.channels, "no number"
    assert drive.channels["array"].index == "0:7"
    assert drive.channels["scalar"].node == "nsu=urn:hw-sim:shapes:numbers;i=1001"
    assert secured.code == 0, secured.err
    assert "skid/int16" in secured.out
    (drive,) = accepted(secured.out[secured.out.index("[sources") :], tmp_path).sources.values()
    assert (drive.security, drive.username, drive.password.env) == ("Basic256Sha256", "gw", "OPCUA_PASSWORD")
    assert "skid/double" not in secured.out
    assert "secret" not in secured.out
    assert wrong.code == 3
    assert "BadUserAccessDenied" in json.loads(wrong.out)["error"]
    assert json.loads(wrong.out)["endpoints"]
    assert below.code == 0
    (x,) = accepted((tmp_path / "x.toml").read_text(), tmp_path).sources.values()
    assert list(x.channels) == ["scalar", "array"]
    assert list(x.channel_sections()) == ["scalar", *(f"array_{at}" for at in range(8))]
    assert astray.code == 2
    assert "no 'nowhere' in Objects; there is " in astray.err
    (drive,) = accepted(json.loads(units.out)["fragment"], tmp_path).sources.values()
    assert {name: (each.node, each.unit) for name, each in drive.channels.items()} == {
        "Temp_in": ("s=Temp;in", "°C"), "Temp_out": ("s=Temp out", "°C"), "Line_2_Temp_out": ("s=x", ""),
    }  # fmt: skip
    assert json.loads(few.out)["nodes_looked_at"] == 3
    assert json.loads(few.out)["cut"] == "3 nodes were looked at"
    assert flat.code == 1
    assert "not all: there is more below 1 levels" in flat.out


async def furnished(server):
    """Two lines beside what is there: variables with units, and one whose name is another's."""
    index = await server.register_namespace("urn:tests:units")
    line = await server.nodes.objects.add_object(ua.NodeId("Line 1", index), "Line 1")
    for name in ("Temp;in", "Temp out"):
        variable = await line.add_variable(ua.NodeId(name, index), name, 20.5)
        unit = ua.EUInformation(UnitId=4408652, DisplayName=ua.LocalizedText("°C"))
        await variable.add_property(index, "EngineeringUnits", unit)
    spare = await server.nodes.objects.add_object(ua.NodeId("Line 2", index), "Line 2")
    await spare.add_variable(ua.NodeId("x", index), "Temp out", 3)


async def test_a_server_that_is_none_is_told(free_port):
    done = await dxad("browse", f"opc.tcp://127.0.0.1:{free_port}")
    assert (done.code, "Connection refused" in done.err) == (3, True)

    async def hang_up(reader, _writer):
        await reader.read(100)

    async with listening(hang_up) as port:
        done = await dxad("browse", f"opc.tcp://127.0.0.1:{port}")
    assert done.code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http://x",), "is not opc.tcp://host:port/path"),
        (("opc.tcp://h",), "is not opc.tcp://host:port/path"),
        (("opc.tcp://u:p@h:1",), "give --user"),
        (("opc.tcp://h:1", "--user=gw"), "name the password"),
        (("opc.tcp://h:1", "--certificate=x.pem"), "belong together"),
        (("opc.tcp://h:1", "--for=3"), "is not a number and one of the units"),
    ],
)
async def test_a_mistake_on_the_command_line_is_told(arguments, message):
    done = await dxad("browse", *arguments)
    assert done.code == 2
    assert message in done.err


async def test_a_server_that_takes_few_nodes_at_once_is_asked_in_halves():
    asked = []

    async def ask(nodes):
        asked.append(len(nodes))
        if len(nodes) > 3:
            raise uaerrors.BadTooManyOperations
        return [node * 10 for node in nodes]

    assert await halved(ask, list(range(10))) == [node * 10 for node in range(10)]
    assert max(asked[1:]) < 10

    async def never(_nodes):
        raise uaerrors.BadTooManyOperations

    with pytest.raises(uaerrors.BadTooManyOperations):
        await halved(never, [1, 2])
