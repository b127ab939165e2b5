"""The MQTT source over TLS: whom it trusts, what it says where it does not, and that it never falls back."""

import asyncio
import json
import os
import shutil
import time
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.mqtt import Config, Mqtt
from hw_sim import pki
from hw_sim.ports import free_port
from tests.certificates import expired
from tests.patience import PATIENCE_S
from tests.peers import silence
from tests.simulated import MOTOR, motor


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """An authority, a server's certificate on loopback, a client's."""
    return pki.make(tmp_path_factory.mktemp("pki"))


def config(port, *, scheme="mqtts", host="127.0.0.1", **settings):
    document = {"type": "mqtt", "url": f"{scheme}://{host}:{port}", "topic": "t", "period": "10ms"}
    return Config.model_validate({**document, "channels": {"a": {}, "b": {}}, **settings})


@asynccontextmanager
async def connected(settings):
    source = Mqtt("s", settings, clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def refused(settings, kind=NotConnected):
    """Connect in vain; returns the reason."""
    with pytest.raises(kind) as told:
        async with connected(settings):
            pytest.fail("it took that")
    return str(told.value)


@asynccontextmanager
async def listening(context):
    """A server that shakes hands and then says nothing; its port."""
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await silence(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        await server.wait_closed()


async def test_messages_come_from_a_broker_whose_authority_is_trusted(keys):
    async with motor(pki=keys.folder) as (_, secured, _):
        settings = config(secured, tls={"ca": str(keys.ca)}, **MOTOR)
        async with asyncio.timeout(PATIENCE_S), connected(settings) as source:
            found = []
            while len(found) < 10:
                found += (await source.read()).samples["value"].tolist()
    assert all(
        9 < current < 12 and 1300 < speed < 1600 for current, speed in zip(*[iter(found)] * 2, strict=True)
    )


async def test_a_broker_may_ask_who_we_are(keys):
    certificate, key = map(str, keys.client)
    async with motor(pki=keys.folder, client_certificate="required") as (_, secured, _):
        known = {"ca": str(keys.ca), "certificate": certificate, "key": key}
        async with connected(config(secured, tls=known, **MOTOR)) as source, asyncio.timeout(PATIENCE_S):
            assert len((await source.read()).samples)
        told = await refused(config(secured, tls={"ca": str(keys.ca)}, **MOTOR))
    assert f"mqtts://127.0.0.1:{secured}: the broker closed the connection before it answered CONNECT" in told
    assert "it may refuse the login, or our certificate; nor does it take MQTT 3.1.1" in told


async def test_an_authority_that_nobody_trusts_is_refused(keys, tmp_path):
    others = pki.make(tmp_path / "others")
    async with listening(keys.server_context(client_certificate="optional")) as port:
        for tls in ({}, {"ca": str(others.ca)}):
            told = await refused(config(port, tls=tls))
            assert f"mqtts://127.0.0.1:{port}: its certificate is not to be trusted: " in told
            assert "issuer" in told or "self-signed" in told


async def test_a_certificate_of_another_host_is_refused_and_a_name_may_be_given(keys):
    async with motor(pki=keys.folder) as (_, secured, _):
        trusted = {"ca": str(keys.ca)}
        told = await refused(config(secured, tls={**trusted, "server_name": "gateway.example"}, **MOTOR))
        assert "not to be trusted: Hostname mismatch, certificate is not valid for 'gateway.example'" in told
        async with connected(config(secured, tls={**trusted, "server_name": "localhost"}, **MOTOR)):
            pass


async def test_a_certificate_that_has_expired_is_refused(tmp_path):
    context, old = expired(tmp_path)
    async with listening(context) as port:
        assert "certificate has expired" in await refused(config(port, tls={"ca": str(old)}))


async def test_neither_speaks_plain_where_tls_is_meant(keys):
    async with motor(pki=keys.folder) as (plain, secured, _):
        told = await refused(config(plain, tls={"ca": str(keys.ca)}, **MOTOR))
        assert f"mqtts://127.0.0.1:{plain}: " in told
        assert "does the peer speak TLS on this port?" in told or "does not speak TLS" in told
        told = await refused(config(secured, scheme="mqtt", **MOTOR))
        assert "before it answered CONNECT" in told


async def test_a_peer_that_never_ends_the_handshake_is_given_up(monkeypatch):
    monkeypatch.setattr("dxad.links.mqtt._ANSWER_S", 0.1)
    async with listening(None) as port:
        assert "no answer to CONNECT within 0.1 s" in await refused(config(port))


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        ({"ca": "/nowhere/ca.pem"}, "tls.ca: /nowhere/ca.pem: No such file or directory"),
        ({"ca": __file__}, "test_source_mqtt_tls.py: no certificate or crl found"),
        ({"certificate": "/no/c.pem", "key": "/no/k.pem"}, "/no/c.pem, /no/k.pem: No such file"),
    ],
)
async def test_a_file_that_is_not_what_it_should_be_is_named(tls, says):
    assert says in await refused(config(1, tls=tls), ConfigError)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scheme": "mqtt", "tls": {"ca": "/ca.pem"}}, r"not encrypted; mqtts:// is"),
        ({"tls": {"certificate": "/c.pem"}}, "certificate and key belong together"),
        ({"tls": {"verify": False}}, "verify: unknown key"),
    ],
)
def test_what_would_be_no_security_is_refused(settings, says):
    with pytest.raises(ValidationError) as told:
        config(1, **settings)
    assert says in str(told.value).replace("\n  ", ": ")


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
async def test_mosquitto_is_spoken_to_over_tls_with_both_sides_known(keys, tmp_path):
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port, (certificate, key) = free_port(), keys.server
    (tmp_path / "m.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\ncafile {keys.ca}\ncertfile {certificate}\n"
        f"keyfile {key}\nrequire_certificate true\n" + ("user root\n" if os.getuid() == 0 else "")
    )
    ours, secret = map(str, keys.client)
    known = {"ca": str(keys.ca), "certificate": ours, "key": secret}
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(tmp_path / "m.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        source = Mqtt("s", config(port, tls=known), clock=SystemClock())
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                await source.connect()
            except NotConnected:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            else:
                break
        try:
            lines = "".join(json.dumps({"a": number, "b": -number}) + "\n" for number in range(2000))
            trust = ("--cafile", str(keys.ca), "--cert", ours, "--key", secret)
            send = ("mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), *trust, "-t", "t", "-q", "1", "-l")
            publisher = await asyncio.create_subprocess_exec(*send, stdin=asyncio.subprocess.PIPE)
            sending = asyncio.create_task(publisher.communicate(lines.encode()))
            found = []
            async with asyncio.timeout(PATIENCE_S):
                while len(found) < 4000:
                    found += (await source.read()).samples["value"].tolist()
            await sending
            assert found[::2] == [float(number) for number in range(2000)]
            told = await refused(config(port, tls={"ca": str(keys.ca)}))
            assert "certificate required" in told or "or our certificate" in told, "whether reset or not"
        finally:
            await source.close()
    finally:
        process.kill()
        await process.wait()
