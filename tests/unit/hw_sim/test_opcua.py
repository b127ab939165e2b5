import asyncio
import datetime as dt
import math
import os
import shutil
import stat

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes128Sha256RsaOaep,
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)
from asyncua.ua.uaerrors import (
    BadCertificateUntrusted,
    BadIdentityTokenRejected,
    BadSecurityModeRejected,
    BadUserAccessDenied,
)
from pydantic import ValidationError

from hw_sim import scenario
from hw_sim.opcua import pki
from hw_sim.opcua.section import Settings
from hw_sim.opcua.wire import Patience, build
from hw_sim.pki import self_signed
from tests.unit.hw_sim.opcua_bed import COUNT, DEVICES, FAN, FANNED, NOW, PUMP, Bed, bed, settings, until

KINDS = (
    "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    "String",
)  # fmt: skip
TYPES = "urn:hw-sim:tests:types"
POLICIES = {
    "Basic256Sha256": SecurityPolicyBasic256Sha256,
    "Aes128Sha256RsaOaep": SecurityPolicyAes128Sha256RsaOaep,
    "Aes256Sha256RsaPss": SecurityPolicyAes256Sha256RsaPss,
}
MODES = ("Sign", "SignAndEncrypt")

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain():
    nodes = {kind.lower(): {"node": f"s={kind}", "kind": kind, "channel": "count"} for kind in KINDS}
    wave = {"node": "s=Wave", "kind": "Float", "channel": "count", "array": 4}
    types = {"namespace": TYPES, "period": "50ms", "nodes": {**nodes, "wave": wave}}
    async with bed(devices={**DEVICES, "types": types}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory):
    folder, further = tmp_path_factory.mktemp("pki"), tmp_path_factory.mktemp("trusted")
    guest = self_signed("guest", uris=["urn:hw-sim:tests:guest"])
    guest.save(further / "guest.pem", folder / "guest-key.pem")
    stranger = self_signed("stranger", uris=["urn:hw-sim:tests:stranger"])
    stranger.save(folder / "stranger.pem", folder / "stranger-key.pem")
    (further / "note.pem").write_text("no certificate")
    async with bed(
        security=list(POLICIES), users={"operator": "sécret"}, trusted=further, pki=folder
    ) as made:
        made.keys = {
            "client": (folder / "client.pem", folder / "client-key.pem"),
            "guest": (further / "guest.pem", folder / "guest-key.pem"),
            "stranger": (folder / "stranger.pem", folder / "stranger-key.pem"),
        }
        yield made


async def caller(
    wire, policy="Basic256Sha256", mode="SignAndEncrypt", *, application, user=None, password=None
):
    """asyncua's client, with certificate and key of an application and a user's name or certificate."""
    client = Client(wire.url, timeout=2, watchdog_intervall=3600)
    client.application_uri = pki.CLIENT_URI
    certificate, key = application
    await client.set_security(POLICIES[policy], certificate, key, mode=getattr(ua.MessageSecurityMode, mode))
    if isinstance(user, str):
        client.set_user(user)
        client.set_password(password)
    elif user is not None:
        await client.load_client_certificate(user[0])
        await client.load_private_key(user[1])
    return client


@in_one_loop
async def test_variables_have_the_plants_values_in_their_types(plain):
    plain.bench.readings = {**plain.bench.readings, "count": 300.4}
    plain.wire._space._show_all(NOW)
    async with plain.client() as client:
        shown = {kind: (await client.read((TYPES, f"s={kind}"))).Value for kind in KINDS}
        assert {kind: value.VariantType.name for kind, value in shown.items()} == {
            kind: kind for kind in KINDS
        }
        whole = {kind: 300 for kind in KINDS if "Int" in kind}
        assert {kind: value.Value for kind, value in shown.items()} == whole | {
            "Boolean": True,
            "SByte": 127,
            "Byte": 255,
            "Float": pytest.approx(300.4),
            "Double": 300.4,
            "String": "300.4",
        }
        plain.bench.readings = {**plain.bench.readings, "count": -1e300}
        plain.wire._space._show_all(NOW)
        assert (await client.read((TYPES, "s=UInt16"))).Value.Value == 0
        assert (await client.read((TYPES, "s=Int64"))).Value.Value == -(2**63)
        assert (await client.read((TYPES, "s=Boolean"))).Value.Value is False
        assert (await client.read((TYPES, "s=Float"))).Value.Value == -math.inf
    await plain.quiet()


@in_one_loop
async def test_a_sensor_that_shows_nothing_is_a_bad_status_without_a_value(plain):
    async with plain.client() as client:
        plain.bench.readings = {**plain.bench.readings, "count": math.nan}
        plain.wire._space._show_all(NOW)
        for place in (COUNT, FANNED, (TYPES, "s=String")):
            shown = await client.read(place)
            assert shown.StatusCode.value == ua.StatusCodes.BadSensorFailure
            assert shown.Value.Value is None
        plain.step()
        assert (await client.read()).StatusCode.is_good()
    await plain.quiet()


@in_one_loop
async def test_values_are_told_when_they_change_at_the_devices_period_in_the_plants_time(plain):
    async with (
        plain.client() as client,
        client.watching(COUNT, (PUMP, "i=7")) as fast,
        client.watching((TYPES, "s=Double")) as slow,
    ):
        seen = len(fast), len(slow)
        at_s = plain.bench.at_s
        plain.step(100)
        await until(lambda: len(fast) == seen[0] + 100 and len(slow) == seen[1] + 20)
        stamps = [each.SourceTimestamp.replace(tzinfo=dt.UTC).timestamp() for each in fast[-100:]]
        assert stamps == pytest.approx([NOW + at_s + 0.01 * step for step in range(1, 101)], abs=1e-3)
        clock = await client.client.get_node("i=2258").read_value()
        assert clock.replace(tzinfo=dt.UTC).timestamp() == pytest.approx(stamps[-1], abs=1.0)
    await plain.quiet()


@in_one_loop
async def test_an_array_has_the_last_readings(plain):
    plain.step(7)
    plain.wire._space._show_all(NOW)
    last = plain.bench.readings["count"]
    async with plain.client() as client:
        node = await client.node((TYPES, "s=Wave"))
        assert await node.read_value() == [last - 3, last - 2, last - 1, last]
        assert await node.read_value_rank() == ua.ValueRank.OneDimension
        assert await node.read_array_dimensions() == [4]
    await plain.quiet()


@in_one_loop
async def test_the_past_can_be_read_where_the_scenario_says_so_and_no_further_back(plain):
    plain.step(10)
    async with plain.client() as client:
        now_s = NOW + plain.bench.at_s
        since = dt.datetime.fromtimestamp(now_s - 0.055, dt.UTC)
        past = await (await client.node(COUNT)).read_raw_history(since, None)
        last = plain.bench.readings["count"]
        assert [each.Value.Value for each in past] == [last - 5 + each for each in range(6)]
        with pytest.raises(ua.uaerrors.BadHistoryOperationUnsupported):
            await (await client.node(FANNED)).read_raw_history(since, None)
    kept = next(iter(plain.wire._space.pasts.values())).maxlen
    assert kept == 60_000  # ten minutes of 10 ms
    await plain.quiet()


@in_one_loop
async def test_devices_have_their_objects_and_namespaces(plain):
    async with plain.client() as client:
        children = await client.client.nodes.objects.get_children()
        names = {(await child.read_browse_name()).Name for child in children}
        assert {"Pump", "fan", "types"} <= names
        pump = await client.node((PUMP, "s=Pump"))
        assert {(await child.read_browse_name()).Name for child in await pump.get_children()} == {
            "count",
            "pain",
        }
        array = await client.client.get_namespace_array()
        assert array[1:] == [plain.wire.uri, PUMP, FAN, TYPES]
    about = plain.wire.endpoints["pump"].about
    assert about == f"OPC-UA, {PUMP}, s=Pump.Count i=7; None; anonymous"
    await plain.quiet()


@in_one_loop
async def test_nobody_can_write(plain):
    async with plain.client() as client:
        with pytest.raises(BadUserAccessDenied):
            await (await client.node(COUNT)).write_value(1.0)
    await plain.quiet()


@in_one_loop
async def test_counts_are_what_clients_got(plain):
    async with plain.client() as client, client.watching(COUNT) as told:
        before = plain.wire.counts.copy()
        seen = len(told)
        plain.step(10)
        await until(lambda: len(told) == seen + 10)
        await client.read()
        assert plain.wire.counts["notified"] - before["notified"] == 10
        assert plain.wire.counts["read"] - before["read"] == 2  # with the namespaces
    await plain.quiet()


@in_one_loop
async def test_a_run_as_fast_as_the_wire_waits_for_the_queues_of_subscribers(plain):
    async with plain.client() as client:
        told = []

        class Handler:
            def datachange_notification(self, node, value, data):
                told.append(value)

        subscription = await client.client.create_subscription(10, Handler())
        await subscription.subscribe_data_change(await client.node(COUNT), queuesize=3)
        await until(lambda: told)
        first = told[0]
        for _ in range(20):
            await plain.wire.ready()
            plain.step(1)
        await until(lambda: len(told) == 21)
        assert told == [first + each for each in range(21)]
        await subscription.delete()
    await plain.quiet()


def test_a_client_that_fetches_slowly_is_waited_for_as_long_as_it_takes():
    patience = Patience(2.0)
    assert not any(patience.lost(100 - number, 1.9 * number) for number in range(50))
    assert not patience.lost(51, 49 * 1.9 + 2.0)
    assert patience.lost(51, 49 * 1.9 + 2.1)


@in_one_loop
async def test_a_run_as_fast_as_the_wire_gives_a_client_up_that_fetches_nothing(plain, monkeypatch, caplog):
    monkeypatch.setattr("hw_sim.opcua.wire._PATIENCE_S", 0.05)
    async with plain.client() as client:
        silent = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=20, PublishingEnabled=False, RequestedLifetimeCount=1000,
            RequestedMaxKeepAliveCount=100,
        )  # fmt: skip
        subscription = await client.client.create_subscription(silent, None)
        await subscription.subscribe_data_change(await client.node(COUNT), queuesize=2)
        for _ in range(5):
            await plain.wire.ready()
            plain.step(1)
        assert caplog.text.count("a client fetches nothing of what it has subscribed to") == 1
        await subscription.delete()
    await plain.quiet()


@in_one_loop
async def test_a_server_whose_only_device_is_without_power_is_gone(plain):
    await plain.power_off("pump")
    async with plain.client() as client:
        assert (await client.read()).StatusCode.value == ua.StatusCodes.BadNoCommunication
        assert (await client.read(FANNED)).StatusCode.is_good()
    await plain.power_off("pump", "fan", "types")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await Client(plain.wire.url, timeout=1).connect()
    await plain.switch()
    async with plain.client() as client:
        assert (await client.read()).StatusCode.is_good()
    await plain.quiet()


@in_one_loop
async def test_faults_may_be_on_together_and_end_in_any_order(plain):
    await plain.switch("opcua.namespace", "opcua.frozen", "opcua.node_removed", channel="count")
    async with plain.client() as client:
        assert await client.client.get_namespace_index(PUMP) == 3
        assert (await client.read()).StatusCode.value == ua.StatusCodes.BadNodeIdUnknown
    await plain.switch("opcua.frozen", "opcua.stop")
    await plain.switch("opcua.frozen")
    async with plain.client() as client:
        assert await client.client.get_namespace_index(PUMP) == 2
        frozen = await client.read()
        plain.step()
        assert await client.read() == frozen
        await plain.switch()
        assert (await client.read()).Value.Value == plain.bench.readings["count"]
    await plain.quiet()


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_behind():
    async def nothing(reader, writer):
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        there = Bed(settings(port=port))
        with pytest.raises(OSError, match=str(port)):
            await there.wire.start()
        await there.wire.close()


@in_one_loop
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", MODES)
async def test_every_policy_lets_users_in_by_password_and_by_certificate(secure, policy, mode):
    keys = secure.keys
    for login in ({"user": "operator", "password": "sécret"}, {"user": keys["guest"]}):
        client = await caller(secure.wire, policy, mode, application=keys["client"], **login)
        async with client:
            index = await client.get_namespace_index(PUMP)
            shown = await client.get_node(f"ns={index};s=Pump.Count").read_value()
            assert shown == secure.bench.readings["count"]
    await secure.quiet()


@in_one_loop
@pytest.mark.parametrize(
    ("application", "login", "error"),
    [
        ("client", {"user": "operator", "password": "secret"}, BadUserAccessDenied),
        ("client", {"user": "nobody", "password": "sécret"}, BadUserAccessDenied),
        ("client", {"user": "stranger"}, BadIdentityTokenRejected),
        ("client", {}, BadIdentityTokenRejected),
        ("stranger", {"user": "operator", "password": "sécret"}, BadCertificateUntrusted),
    ],
)
async def test_strangers_are_refused(secure, application, login, error):
    if login.get("user") in secure.keys:
        login = {"user": secure.keys[login["user"]]}
    refused = secure.wire.counts["refused"]
    client = await caller(secure.wire, application=secure.keys[application], **login)
    with pytest.raises(error):
        async with client:
            pass
    assert secure.wire.counts["refused"] == refused + 1
    await secure.quiet()


@in_one_loop
async def test_a_server_with_security_alone_shows_its_endpoints_but_serves_nobody_in_the_clear(
    secure, monkeypatch
):
    client = Client(secure.wire.url, timeout=2)
    endpoints = await client.connect_and_get_server_endpoints()
    offered = {(each.SecurityPolicyUri.rpartition("#")[2], each.SecurityMode.name) for each in endpoints}
    assert {mode for _, mode in offered} == set(MODES)
    assert len(offered) == 6
    token = ua.UserTokenPolicy(PolicyId="anonymous", TokenType=ua.UserTokenType.Anonymous)
    bold = ua.EndpointDescription(UserIdentityTokens=[token])
    monkeypatch.setattr(Client, "find_endpoint", staticmethod(lambda *_: bold))
    with pytest.raises(BadSecurityModeRejected):
        async with Client(secure.wire.url, timeout=2):
            pass
    await secure.quiet()


def test_certificates_are_made_once_and_kept_for_the_owners_eyes(tmp_path):
    folder = tmp_path / "keys"
    made = pki.Pki.load(folder, "urn:a")
    again = pki.Pki.load(folder, "urn:a")
    assert again.server.certificate == made.server.certificate
    assert made.second.certificate != made.server.certificate
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "server-key.pem").stat().st_mode) == 0o600
    assert len(pki.load_trusted([folder / "trusted"])) == 1
    shutil.copy(folder / "server.der", folder / "trusted")
    assert len(pki.load_trusted([folder / "trusted", tmp_path / "none"])) == 2
    renamed = pki.Pki.load(folder, "urn:b")
    assert renamed.server.certificate != made.server.certificate


def test_a_folder_of_another_user_is_no_place_for_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermissionError, match="another user"):
        pki.Pki.load(tmp_path, "urn:a")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"security": ["None", "None"]}, "twice"),
        ({"certificates": True}, "needs a security policy"),
        ({"anonymous": False}, "nobody may log in"),
        ({"users": {"operator": ""}}, "at least 1 character"),
        ({"security": ["Basic128"]}, "Basic256Sha256"),
        ({"devices": {}}, "at least 1 item"),
        ({"devices": {**DEVICES, "twin": DEVICES["pump"]}}, "devices.twin.object: devices.pump.object"),
        ({"path": "a b"}, "pattern"),
    ],
)
def test_what_makes_no_server_is_said(changes, said):
    with pytest.raises(ValidationError, match=said):
        settings(**changes)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"node": "Pump.Power", "kind": "Double"}, "pattern"),
        ({"node": "i=x", "kind": "Double"}, "pattern"),
        ({"node": "s=a", "kind": "Real"}, "Boolean"),
        ({"node": "s=a", "kind": "Double", "array": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_variable_is_said(node, said):
    with pytest.raises(ValidationError, match=said):
        settings(devices={"pump": {"namespace": PUMP, "nodes": {"a": node}}})


def test_who_may_come_follows_from_the_logins_unless_it_is_said():
    assert settings().by_nothing
    assert not settings(users={"a": "b"}).by_nothing
    assert settings(users={"a": "b"}, anonymous=True).by_nothing
    assert not settings(security=["Basic256Sha256"], certificates=True).by_nothing


def test_the_pump_skids_drive_is_on_opcua():
    section = scenario.load("pump_skid").wires["drive"]
    assert isinstance(section, Settings)
    wire = build("drive", section, Bed(settings()).bench)
    endpoint = wire.endpoints["drive"]
    assert endpoint == "opc.tcp://127.0.0.1:14840/pump-skid"
    assert "urn:hw-sim:pump-skid, s=Pump.Power s=Pump.SetPoint s=Pump.Running" in endpoint.about
