"""The OPC-UA source and whom it trusts, against the simulator's server with every policy and login."""

import asyncio
import io
import shutil
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.opcua import Config, Opcua
from dxad.sources.opcua.identity import Identity, load_certificate, make
from dxad.sources.opcua.trust import fingerprint
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.opcua_bed import PUMP, bed

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICIES = ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
MODES = ["sign", "sign_and_encrypt"]
BASIC = {"security": "Basic256Sha256"}


alone = pytest.mark.asyncio(loop_scope="function")
"""For tests with a server of their own."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """The keys of all servers."""
    return tmp_path_factory.mktemp("pki")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(pki):
    security = ["None", *(each.replace("_", "") for each in POLICIES)]
    async with bed(
        security=security, users={"gw": "secret"}, certificates=True, anonymous=True, pki=pki
    ) as made:
        yield made


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """Where a certificate of ours is already: one for all tests that do not ask how it comes about."""
    folder = tmp_path_factory.mktemp("state")
    make(folder / "opcua")
    return folder


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv("OPCUA_PASSWORD", "secret")


def source(served, state_dir, **settings) -> Opcua:
    config = Config.model_validate(
        {
            "type": "opcua", "url": served.wire.url, "namespace": PUMP, "publish_interval": "10ms",
            "timeout": "500ms", "channels": {"count": {"node": "s=Pump.Count"}}, **settings,
        }
    )  # fmt: skip
    return Opcua("pump", config, clock=SystemClock(), state_dir=state_dir)


@asynccontextmanager
async def connected(served, state_dir, **settings):
    made = source(served, state_dir, **settings)
    try:
        await made.connect()
        yield made
    finally:
        await made.close()
        await served.quiet()


async def reads(served, state_dir, **settings) -> None:
    """A value of the pump arrives."""
    async with connected(served, state_dir, **settings) as made, asyncio.timeout(PATIENCE_S):
        served.step()
        block = await made.read()
        assert (block.samples["quality"] == 0).all()


async def refusal(served, state_dir, kind=ConfigError, **settings) -> str:
    with pytest.raises(kind) as told:
        await reads(served, state_dir, **settings)
    return str(told.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_in_either_mode(served, state, policy, mode):
    await reads(served, state, security=policy, security_mode=mode)


async def test_our_certificate_is_made_once_and_kept_and_says_who_we_are(served, tmp_path):
    await reads(served, tmp_path, **BASIC)
    files = {each.name: each for each in (tmp_path / "opcua").iterdir()}
    assert {"own.pem", "own.der", "own-key.pem"} < set(files)
    assert files["own-key.pem"].stat().st_mode & 0o777 == 0o600
    first = Identity.load(files["own.pem"], files["own-key.pem"])
    assert first.uri.startswith("urn:")
    assert first.uri.endswith(":dxad")
    await reads(served, tmp_path, security="Aes256_Sha256_RsaPss")
    assert load_certificate(files["own.der"]) == first.certificate


async def test_no_certificate_key_or_secret_is_read_or_written_on_the_event_loop(
    served, state, pki, tmp_path, monkeypatch
):
    loop, opened = threading.current_thread(), []
    really = io.open
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def seen(file, *rest, **more):
        path = str(file)
        if path.endswith((".pem", ".der", ".new")) or path == str(secret):
            opened.append((Path(path).name, threading.current_thread() is loop))
        return really(file, *rest, **more)

    monkeypatch.setattr(io, "open", seen)  # which pathlib opens files by
    shutil.copytree(state, tmp_path / "state", ignore=shutil.ignore_patterns("trusted"))
    opened.clear()
    login = {"username": "gw", "password": {"file": str(secret)}}
    await reads(served, tmp_path / "state", **BASIC, **login)
    given = {"certificate": str(pki / "client.pem"), "key": str(pki / "client-key.pem")}
    await reads(served, tmp_path / "state", **BASIC, **given)
    assert {name for name, _ in opened} >= {"own.pem", "own-key.pem", "client.pem", "client-key.pem"}
    assert [name for name, on_loop in opened if on_loop] == []
    assert len([name for name, _ in opened if name.endswith(".new")]) == 1, "pinned once"


async def test_a_damaged_key_of_ours_is_not_replaced_but_told(served, tmp_path):
    make(tmp_path / "opcua")
    key = tmp_path / "opcua" / "own-key.pem"
    key.write_text("nonsense")
    told = await refusal(served, tmp_path, **BASIC)
    assert f"{key}: is no private key" in told
    assert "Remove" in told


async def test_a_certificate_of_the_sites_own(served, state, pki):
    given = {"certificate": pki / "client.pem", "key": pki / "client-key.pem"}
    await reads(served, state, **BASIC, **given)
    assert "is not the key of" in await refusal(
        served, state, **BASIC, **{**given, "key": pki / "server-key.pem"}
    )


async def test_security_without_a_place_to_keep_certificates_is_refused(served):
    assert "give state_dir" in await refusal(served, None, **BASIC)


class TestTrust:
    async def test_a_changed_certificate_is_refused_until_its_file_is_removed(self, served, tmp_path, pki):
        make(tmp_path / "opcua")
        await reads(served, tmp_path, **BASIC)
        pinned = tmp_path / "opcua" / "trusted" / f"127.0.0.1_{served.wire._port}.pem"
        first, second = (load_certificate(pki / f"{each}.pem") for each in ("server", "second"))
        assert load_certificate(pinned) == first
        await served.switch("opcua.certificate")
        told = await refusal(served, tmp_path, **BASIC)
        assert f"remove {pinned}" in told
        assert fingerprint(first) in told
        assert fingerprint(second) in told
        assert load_certificate(pinned) == first
        pinned.unlink()
        await reads(served, tmp_path, **BASIC)
        assert load_certificate(pinned) == second
        await served.switch()

    async def test_a_given_certificate_is_the_only_one(self, served, state, pki):
        await reads(served, state, **BASIC, server_certificate=pki / "server.pem")
        await reads(served, state, **BASIC, server_certificate=pki / "server.der")
        other = pki / "second.pem"
        told = await refusal(served, state, **BASIC, server_certificate=other)
        assert f"replace {other} (server_certificate)" in told

    async def test_a_certificate_that_cannot_be_read_is_told(self, served, state, tmp_path):
        nothing = tmp_path / "nothing.pem"
        assert f"{nothing}: No such file" in await refusal(served, state, **BASIC, server_certificate=nothing)
        nothing.write_bytes(b"nonsense")
        assert f"{nothing}: is no certificate" in await refusal(
            served, state, **BASIC, server_certificate=nothing
        )


class TestLogin:
    @pytest.mark.parametrize("security", ["none", "Basic256Sha256"])
    async def test_by_name_and_password(self, served, state, security):
        await reads(
            served, state, security=security, username="gw", password={"env": "OPCUA_PASSWORD"},
            plain_password=True,
        )  # fmt: skip

    async def test_a_wrong_password_is_refused_and_told(self, served, state, monkeypatch):
        monkeypatch.setenv("OPCUA_PASSWORD", "guess")
        told = await refusal(served, state, **BASIC, username="gw", password={"env": "OPCUA_PASSWORD"})
        assert "the server refuses the login" in told
        assert "guess" not in told

    async def test_by_certificate(self, served, state, pki):
        user = {"user_certificate": pki / "client.pem", "user_key": pki / "client-key.pem"}
        await reads(served, state, **BASIC, **user)

    async def test_by_a_certificate_that_the_server_does_not_know(self, served, state):
        user = {
            "user_certificate": state / "opcua" / "own.pem",
            "user_key": state / "opcua" / "own-key.pem",
        }
        assert "refuses the login" in await refusal(served, state, **BASIC, **user)

    async def test_a_refused_login_leaves_nothing_and_can_be_repeated(self, served, state):
        await served.switch("opcua.no_login")
        assert "refuses the login" in await refusal(served, state)
        assert "refuses the login" in await refusal(served, state)
        await served.switch()
        await reads(served, state)

    @alone
    async def test_a_password_in_the_clear_is_refused(self, tmp_path):
        async with bed(users={"gw": "secret"}) as plain:
            login = {"username": "gw", "password": {"env": "OPCUA_PASSWORD"}}
            assert "the password as it is" in await refusal(plain, tmp_path, **login)
            await reads(plain, tmp_path, **login, plain_password=True)


@alone
async def test_a_policy_that_is_not_offered_is_told_with_those_that_are(state, pki):
    async with bed(security=["None", "Basic256Sha256"], pki=pki) as other:
        told = await refusal(other, state, security="Aes256_Sha256_RsaPss")
        assert "does not offer Aes256_Sha256_RsaPss (sign_and_encrypt)" in told
        assert "none, Basic256Sha256 (sign), Basic256Sha256 (sign_and_encrypt)" in told


@alone
async def test_a_server_that_does_not_trust_us_is_told_how_to(tmp_path, state, pki):
    async with bed(security=["Basic256Sha256"], trusted=tmp_path, anonymous=True, pki=pki) as strict:
        told = await refusal(strict, state, NotConnected, **BASIC)
        assert "does not trust our certificate yet" in told
        (tmp_path / "dxad.der").write_bytes((state / "opcua" / "own.der").read_bytes())
        await reads(strict, state, **BASIC)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "opc.tcp://gw:secret@127.0.0.1:4840"}, "give username and password"),
        ({"security": "Basic128Rsa15"}, "Basic256Sha256"),
        ({"username": "gw"}, "username and password belong together"),
        ({"certificate": "a.pem", "security": "Basic256Sha256"}, "certificate and key belong together"),
        ({"user_certificate": "a", "user_key": "b"}, 'security = "none" proves nothing'),
        ({"server_certificate": "a.pem"}, 'server_certificate: security = "none" proves nothing'),
        (
            {
                "security": "Basic256Sha256", "username": "gw", "password": {"env": "P"},
                "user_certificate": "a", "user_key": "b",
            },
            "not by both",
        ),
    ],
)  # fmt: skip
async def test_a_configuration_that_cannot_be_meant_is_refused(served, settings, says):
    with pytest.raises(ValueError, match=says):
        source(served, None, **settings)
