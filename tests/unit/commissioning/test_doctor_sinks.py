"""What the doctor says of sinks: it looks whether they would take events, and sends none."""

import asyncio

import mqtt5

from dxad import config, plugin
from dxad.commissioning import checkends, checkfiles
from dxad.runtime.clock import SystemClock
from hw_sim import pki
from tests.httppeers import Receiver, answering
from tests.mqttbrokers import TakingBroker
from tests.peers import listening


async def looked_at(tmp_path, **settings):
    section = plugin.load("sinks", settings["type"]).config.model_validate(settings)
    return await checkends.sink("out", section, state_dir=tmp_path, clock=SystemClock())


async def test_a_broker_is_logged_in_to_as_somebody_else_who_says_nothing(tmp_path):
    broker = TakingBroker()
    async with listening(broker.serve) as port:
        (found,) = await looked_at(tmp_path, type="mqtt", url=f"mqtt://127.0.0.1:{port}", client_id="gw3")
        await asyncio.sleep(0.005)
    assert found.state == "ok"
    assert found.found.endswith("takes us; nothing was published")
    (hello,) = broker.hellos
    assert hello.client_id != "gw3"
    assert hello.will is None
    assert broker.published == []


async def test_a_broker_that_does_not_know_us_is_told(tmp_path):
    broker = TakingBroker()
    broker.connack = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD)
    async with listening(broker.serve) as port:
        (found,) = await looked_at(tmp_path, type="mqtt", url=f"mqtt://127.0.0.1:{port}")
    assert (found.state, "BAD_USER_NAME" in found.found) == ("fail", True)


async def test_a_receiver_is_trusted_by_the_authority_of_its_section(tmp_path):
    keys, peer = pki.make(tmp_path / "pki"), Receiver()
    async with answering(peer.take, tls=keys.server_context(client_certificate="optional")) as url:
        found = await looked_at(tmp_path, type="http", url=url, tls={"ca": str(keys.ca)})
        assert found[0].state == "ok"
        (strange, *_) = await looked_at(tmp_path, type="webhook", url=url)
        assert (strange.state, "not to be trusted" in strange.found) == ("fail", True)
        (gone, *_) = await looked_at(tmp_path, type="http", url=url, tls={"ca": "/nowhere/ca.pem"})
        assert (gone.state, "/nowhere/ca.pem" in gone.found) == ("fail", True)
    assert peer.requests == []


def test_a_private_key_may_be_a_secret_by_reference(tmp_path, monkeypatch):
    keys = pki.make(tmp_path / "pki")
    certificate, key = keys.client
    document = {
        "sources": {
            "m": {"type": "mqtt", "url": "mqtt://h", "period": "1s", "topic": "t", "channels": {"a": {}}}
        },
        "sinks": {
            "out": {
                "type": "http",
                "url": "https://h/",
                "tls": {"certificate": str(certificate), "key": {"credential": key.name}},
            }
        },
    }
    found = config.parse(document)
    assert list(checkfiles.certificates(found)) == [("sinks.out.tls.certificate", certificate, None)]
    assert [name for name, _ in checkfiles.secrets(found)] == ["sinks.out.tls.key"]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key.parent))
    assert list(checkfiles.certificates(found)) == [("sinks.out.tls.certificate", certificate, key)]
