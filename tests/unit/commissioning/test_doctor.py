"""What `dxad doctor` finds: sound things, and mistakes that were planted."""

import asyncio
import datetime as dt
import errno
import fcntl
import json
import os
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dxad import plugin
from dxad.commissioning import checkends, checkmachine, checkoutbox
from dxad.commissioning.checkfiles import Whom
from dxad.commissioning.checkup import Check, examine, fine
from dxad.outbox import database
from dxad.runtime.clock import SystemClock
from dxad.types import NS_PER_S
from tests.peers import listening, silence
from tests.simulated import motor
from tests.unit.commissioning.bench import dxad

NOW = dt.datetime.now(dt.UTC)


def written(folder, text, **places):
    path = folder / "dxad.toml"
    head = 'state_dir = "{folder}/state"\ncontrol.socket = "{folder}/c.sock"\n'
    path.write_text((head + text).format(folder=folder, **places))
    return path


async def looked(path, *options, environment=None):
    """What it finds, by kind and subject, and how it ends."""
    done = await dxad("doctor", "-c", path, "--json", *options, environment=environment)
    document = json.loads(done.out)
    return done.code, {(each["check"], each["subject"]): each for each in document["findings"]}


def signed(folder, name, *, until, key=None):
    """A certificate and its key, or the certificate of another."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - dt.timedelta(days=400))
        .not_valid_after(until)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate, file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(pem))
    file.write_bytes(private)
    file.chmod(0o600)
    return certificate, file


SOUND = """
[sources.motor]
type = "mqtt"
url = "mqtt://127.0.0.1:{broker}"
topic = "plant/motor"
period = "100ms"
channels = {{ current = {{}}, speed = {{}} }}
client_id = "the-daemon"
session = "1h"
[sinks.reasoning]
type = "http"
url = "http://127.0.0.1:{sink}/events"
[sinks.log]
type = "file"
path = "events.jsonl"
"""


async def test_what_is_sound_is_told_and_nothing_is_left_behind(tmp_path):
    async with motor() as sim, listening(silence) as sink:
        path = written(tmp_path, SOUND, broker=sim.plain, sink=sink)
        before = sorted(tmp_path.rglob("*"))
        code, found = await looked(path)
        human = await dxad("doctor", "-c", path, "--for=2s")
    assert code == 0
    assert found["source", "motor"]["found"].startswith("2 of 2 channels")
    assert found["sink", "reasoning"]["found"].endswith("answers; no event was sent")
    assert found["disk", str(tmp_path)]["state"] == "ok"
    assert found["memory", "memory_max"]["state"] == "ok"
    assert {"clock", "python", "userland", "unit", "user", "runtime", "daemon"} <= {kind for kind, _ in found}
    assert sorted(tmp_path.rglob("*")) == before
    assert human.code == 0
    assert "0 failures" in human.out


PLANTED = """
[outbox]
max_size = "999999GiB"
[sources.wrong_port]
type = "modbus"
url = "tcp://127.0.0.1:{nobody}"
period = "1s"
channels = {{ flow = {{ register = "input:1" }} }}
[sources.wrong_password]
type = "mqtt"
url = "mqtt://127.0.0.1:{locked}"
topic = "plant/motor"
period = "100ms"
username = "gw"
password = {{ env = "WRONG_PASSWORD" }}
channels = {{ current = {{}} }}
[sources.silent]
type = "mqtt"
url = "mqtt://127.0.0.1:{locked}"
period = "100ms"
username = "gw"
password = {{ env = "RIGHT_PASSWORD" }}
[sources.silent.channels]
current = {{ topic = "plant/motor" }}
torque = {{ topic = "plant/motor" }}
ghost = {{ topic = "plant/ghost" }}
[sources.garbled]
type = "mqtt"
url = "mqtt://127.0.0.1:{locked}"
topic = "plant/motor"
period = "100ms"
decode = {{ kind = "number" }}
username = "gw"
password = {{ env = "RIGHT_PASSWORD" }}
channels = {{ value = {{}} }}
[sources.sealed]
type = "mqtt"
url = "mqtts://127.0.0.1:{nobody}"
topic = "t"
period = "100ms"
password = {{ file = "{folder}/no-secret" }}
username = "gw"
tls = {{ ca = "{ca}", certificate = "{certificate}", key = "{key}" }}
channels = {{ value = {{}} }}
[sources.unplugged]
type = "serial"
port = "/dev/ttyNONE"
period = "1s"
decode = {{ kind = "csv", columns = ["x"] }}
[sinks.reasoning]
type = "http"
url = "http://127.0.0.1:{nobody}/events"
bearer = {{ credential = "token" }}
"""


async def test_planted_mistakes_are_found_each_with_what_to_do(tmp_path, free_port):
    ca, _ = signed(tmp_path, "ca", until=NOW - dt.timedelta(days=1))
    certificate, key = signed(tmp_path, "gateway", until=NOW + dt.timedelta(days=10))
    secrets = {"WRONG_PASSWORD": "guess", "RIGHT_PASSWORD": "secret"}
    async with motor(users='{ gw = "secret" }') as sim:
        path = written(
            tmp_path, PLANTED, nobody=free_port, locked=sim.plain, ca=ca, certificate=certificate, key=key
        )
        options = ("--for=600ms", "--user=nobody")
        done = await dxad("doctor", "-c", path, "--json", *options, environment=secrets)
    findings = json.loads(done.out)["findings"]
    assert done.code == 1
    assert all(each["mend"] for each in findings if each["state"] != "ok")
    told = {(each["check"], each["subject"], each["state"]): each["found"] for each in findings}

    def says(check, subject, state, text):
        assert text in told[check, subject, state]

    says("source", "wrong_port", "fail", "Connection refused")
    says("source", "wrong_password", "fail", "BAD_USER_NAME_OR_PASSWORD")
    silences = [each["found"] for each in findings if each["subject"] == "silent"]
    assert any("torque (type): no good value" in each for each in silences)
    assert any("ghost: nothing came within 0.6 s" in each for each in silences)
    assert any(
        "messages cannot be read" in each["found"] for each in findings if each["subject"] == "garbled"
    )
    says("certificate", "sources.sealed.tls.ca", "fail", "ended on")
    says("certificate", "sources.sealed.tls.certificate", "warn", "ends on")
    says("key", "sources.sealed.tls.certificate", "fail", "nobody may not read")
    says("secret", "sources.sealed.password", "fail", "no-secret: No such file")
    says("secret", "sinks.reasoning.bearer", "warn", "no $CREDENTIALS_DIRECTORY")
    says("device", "unplugged", "fail", "no such device")
    says("sink", "reasoning", "fail", "Connection refused")
    says("disk", str(tmp_path), "warn", "the outbox may take")
    assert "guess" not in done.out


async def test_a_configuration_with_mistakes_is_told_and_the_machine_looked_at_all_the_same(tmp_path):
    path = written(tmp_path, '[sources.a]\ntype = "modbus"\nurl = "tcp://127.0.0.1"\nperiod = 5\n')
    code, found = await looked(path)
    assert code == 1
    assert (
        "sources.a.period" in found["config", str(path)]["found"]
        or "channels" in found["config", str(path)]["found"]
    )
    assert ("clock", "system") in found


async def test_another_dxad_and_a_stale_socket_are_told(tmp_path):
    (tmp_path / "state").mkdir()
    path = written(tmp_path, '[sources.a]\ntype = "serial"\nport = "/dev/ttyNONE"\nperiod = "1s"\n'
                   'decode = {{ kind = "csv", columns = ["x"] }}\n')  # fmt: skip
    server = await asyncio.start_unix_server(lambda _r, w: w.close(), tmp_path / "c.sock")
    holder = os.open(tmp_path / "state", os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        _, found = await looked(path, "--for=100ms")
    finally:
        os.close(holder)
        server.close()
        await server.wait_closed()
    assert "no dxad" in found["daemon", str(tmp_path / "c.sock")]["found"]
    assert f"process {os.getpid()}" in found["daemon", str(tmp_path / "state")]["found"]


def test_a_source_that_the_daemon_has_is_asked_of_it():
    seen = {"connected": True, "age_s": 0.2, "samples": 1000, "faults": {}}
    status = {
        "sources": {"plc": seen, "ill": {**seen, "faults": {"exception 2": 7}}, "off": {"connected": False}}
    }
    assert checkends.as_daemon_sees("plc", status).state == "ok"
    ill = checkends.as_daemon_sees("ill", status)
    assert (ill.state, "exception 2 (7×)" in ill.found) == ("warn", True)
    assert checkends.as_daemon_sees("off", status) is None
    assert checkends.as_daemon_sees("new", status) is None


def test_a_broker_sees_somebody_else_than_the_daemon():
    config = plugin.load("sources", "mqtt").config.model_validate(
        {
            "type": "mqtt",
            "url": "mqtt://h",
            "period": "1s",
            "client_id": "dxad",
            "session": "1h",
            "share": "gateways",
            "channels": {"a": {"topic": "t"}},
        }
    )
    unnoticed = checkends._unnoticed(config)
    assert (unnoticed.client_id, unnoticed.session, unnoticed.share) == (None, None, None)
    assert checkends._unshared("$share/gateways/plant/+") == "plant/+"


async def test_a_place_for_a_device_that_never_came_is_no_channel_that_is_missing(tmp_path):
    config = plugin.load("sources", "mqtt").config
    async with motor() as (port, _, _):
        section = config.model_validate({
            "type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "topic": "plant/{device}", "max_devices": 3,
            "period": "100ms", "channels": {"current": {}, "speed": {}},
        })  # fmt: skip
        found = await checkends.source("s", section, seconds=1.0, state_dir=tmp_path, clock=SystemClock())
    assert [each.state for each in found] == ["ok"]
    assert "2 of 6 channels" in found[0].found
    assert not list(tmp_path.iterdir()), "it has not met the device for good"


async def test_what_hangs_is_a_failure_within_its_time_and_delays_no_other():
    async def hang():
        await asyncio.sleep(60)
        return []

    async def quick():
        return [fine("quick", "q", "done")]

    ended = []
    found = await examine(
        [Check("slow", "s", hang, 0.05), Check("quick", "q", quick)],
        done=lambda each: ended.append(each.kind),
    )
    assert [each.state for each in found] == ["fail", "ok"]
    assert ended == ["quick", "slow"]


def test_access_is_judged_by_owner_group_and_mode(tmp_path):
    tmp_path.chmod(0o755)
    file = tmp_path / "x"
    file.write_text("")
    owner = file.stat()
    other = Whom("other", 64_000, frozenset({64_000}))
    member = Whom("member", 64_000, frozenset({owner.st_gid}))
    file.chmod(0o640)
    reachable = all(each.stat().st_mode & 1 for each in tmp_path.parents)
    assert not other.may(file, os.R_OK)
    assert member.may(file, os.R_OK) is reachable
    assert not member.may(file, os.W_OK)


@pytest.mark.parametrize(("year", "state"), [(1970, "fail"), (2026, None)])
def test_a_clock_that_stands_years_back_is_a_failure(year, state):
    at = int(dt.datetime(year, 6, 1, tzinfo=dt.UTC).timestamp()) * NS_PER_S
    (found,) = checkmachine.clock(_clock(at))
    assert state is None or found.state == state
    assert found.state == "ok" or found.mend


def _clock(utc):
    class Fixed:
        def now(self):
            return 0

        def utc(self, at):
            return utc + at

    return Fixed()


def test_the_unit_must_start_this_configuration(tmp_path):
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    unit = tmp_path / "dxad.service"
    path = tmp_path / "dxad.toml"

    def told():
        (found,) = checkmachine.unit(path, (str(tmp_path),))
        return found.state, found.found

    assert told()[0] == "warn"
    unit.write_text("[Service]\nExecStart=/usr/bin/dxad run -c /elsewhere.toml\n")
    assert "starts another configuration" in told()[1]
    unit.write_text(f"[Service]\nExecStart=/usr/bin/dxad run -c {path}\n")
    assert told() == ("warn", "is not enabled")
    (wants / "dxad.service").symlink_to(unit)
    assert told()[0] == "ok"


def test_the_outbox_is_looked_at_and_what_stands_in_its_place_is_told(tmp_path):
    def told(path):
        return [(each.state, each.found) for each in checkoutbox.outbox(path)]

    path = tmp_path / "outbox.db"
    assert told(path) == [("ok", "is not there yet: dxad makes it")]
    database.open_file(path).close()
    assert told(path) == [("ok", "0 events stored, 0 dead letters")]
    assert told(tmp_path) == [("fail", "this is no outbox, but a directory")]
    path.with_name("outbox.db.damaged-20260101T000000Z").touch()
    assert told(path)[1] == ("warn", "was damaged")
    path.write_bytes(b"")
    assert told(path)[0] == ("fail", "this is no outbox, the file is empty")


def test_a_full_or_worn_disk_is_a_failure(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)

    def told(**changes):
        found = SimpleNamespace(**{name: getattr(real, name) for name in dir(real) if name.startswith("f_")})
        vars(found).update(changes)
        monkeypatch.setattr(os, "statvfs", lambda _: found)
        return [(each.state, each.found) for each in checkmachine.disk(tmp_path / "state", 2**20)]

    assert told()[0][0] == "ok"
    assert told(f_bavail=0)[0][0] == "fail"
    assert told(f_flag=os.ST_RDONLY) == [("fail", "the file system is read-only")]
    assert told(f_files=100_000, f_favail=3)[1][0] == "warn"

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    (found,) = checkmachine.sync_rate(tmp_path, SystemClock())
    assert (found.state, found.found) == ("fail", "nothing can be written: No space left on device")


FILES = """[sources.week]
type = "replay"
path = "{folder}/week.csv"
period = "100ms"
channels = {{ a = {{}} }}
[sources.lims]
type = "sql"
url = "sqlite://{folder}/lims.db"
query = "SELECT id, a FROM t"
cursor = "id"
period = "1s"
channels = {{ a = {{}} }}
"""


async def test_a_file_that_is_not_there_is_no_device_that_is_unplugged(tmp_path):
    _, found = await looked(written(tmp_path, FILES), "--for=100ms")
    for name in ("week", "lims"):
        assert found["source", name]["state"] == "fail"
        assert "file" in found["source", name]["mend"]
        assert "plugged" not in found["source", name]["mend"]
