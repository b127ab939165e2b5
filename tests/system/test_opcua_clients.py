"""The simulator's OPC-UA server before a client of another code base: opcua_client.cjs, on node-opcua."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.unit.hw_sim.opcua_bed import DEVICES, NOW, PUMP, bed

HERE = Path(__file__).parent
MODULES = Path(os.environ.get("NODE_PATH", HERE.parents[1] / ".node" / "node_modules"))
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="Node.js is not installed"),
    pytest.mark.skipif(
        not (MODULES / "node-opcua-client").is_dir(), reason=f"node-opcua-client is not in {MODULES}"
    ),
]

ALL = {"None": ("None",)} | dict.fromkeys(
    ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"), ("Sign", "SignAndEncrypt")
)
WAVE = "urn:hw-sim:tests:wave"


async def visit(served, *visits):
    """Have the client make these visits while the plant runs; returns what it found on each."""
    command = (NODE, str(HERE / "opcua_client.cjs"), json.dumps(visits))
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "NODE_PATH": str(MODULES)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    talk = asyncio.create_task(process.communicate())
    while not talk.done():
        served.step(1)
        await asyncio.wait([talk], timeout=0.01)
    out, errors = talk.result()
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]


async def test_a_client_of_another_code_base_reads_every_device_by_every_policy_and_login(tmp_path):
    keys = tmp_path / "keys"
    wave = {"wave": {"node": "s=Wave", "kind": "Float", "channel": "count", "array": 4}}
    whole = {"whole": {"node": "i=3", "kind": "Int64", "channel": "count"}}
    async with bed(
        security=list(ALL),
        users={"operator": "secret"},
        certificates=True,
        anonymous=True,
        pki=keys,
        devices={**DEVICES, "wave": {"namespace": WAVE, "nodes": {**wave, **whole}}},
    ) as served:
        client = {"certificate": str(keys / "client.pem"), "key": str(keys / "client-key.pem")}
        place = {"endpoint": served.wire.url, "pki": str(tmp_path / "visitor"), **client}
        nodes = {"count": [PUMP, "s=Pump.Count"], "wave": [WAVE, "s=Wave"], "whole": [WAVE, "i=3"]}
        logins = (
            {},
            {"user": "operator", "password": "secret"},
            {"userCertificate": client["certificate"], "userKey": client["key"]},
            {"user": "operator", "password": "wrong"},
        )
        ways = [(policy, mode) for policy, modes in ALL.items() for mode in modes]
        visits = [
            {**place, "policy": policy, "mode": mode, **login, "nodes": nodes}
            for policy, mode in ways
            for login in logins
        ]
        visits[0] |= {"told": {"count": 5, "wave": 2}, "history": "count"}
        found = await visit(served, *visits)
        await served.quiet()

    assert len(found) == len(visits)
    for made, each in zip(visits, found, strict=True):
        if made.get("password") == "wrong":
            assert "BadUserAccessDenied" in each["error"]
            continue
        assert "error" not in each, each
        assert {name: shown["type"] for name, shown in each["read"].items()} == {
            "count": "Double",
            "wave": "Float",
            "whole": "Int64",
        }
        assert {shown["status"] for shown in each["read"].values()} == {"Good"}
        wave = each["read"]["wave"]["value"]
        assert wave == [wave[0] + step for step in range(4)]
    first = found[0]
    assert [(policy, mode) for policy, mode, _ in first["endpoints"]] == ways
    assert all(set(tokens) == {"Anonymous", "UserName", "Certificate"} for _, _, tokens in first["endpoints"])
    told = [shown["value"] for shown in first["told"]["count"]]
    assert told == [told[0] + step for step in range(len(told))]
    past = first["history"]
    assert [shown["value"] for shown in past] == list(range(len(past)))
    assert past[-1]["time"] == pytest.approx(NOW + 0.01 * past[-1]["value"], abs=2e-3)
