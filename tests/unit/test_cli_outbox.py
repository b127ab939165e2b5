"""`dxad outbox`: by the socket of a daemon that runs, by the file of one that does not."""

import asyncio
import csv
import io
import json

import msgpack
import pytest
from click.testing import CliRunner

from dxad.cli.outbox import outbox
from dxad.outbox import Limits, Outbox
from dxad.outboxdesk import OutboxDesk
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane, Record
from tests.unit.control.asking import Remembering, serving

EVENTS = frozenset({Lane.CRITICAL, Lane.NORMAL})


def event(n: int) -> Record:
    document = {"specversion": "1.0", "id": f"e{n}", "type": "dxad.incident.opened", "source": "/g"}
    return Record(f"e{n}", Lane.NORMAL, msgpack.packb({**document, "subject": "pump", "data": {"n": n}}))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
async def box(file):
    """Five events; `sink` has two, has refused one, and one is a dead letter."""
    clock = SystemClock()
    health, metrics = Health(clock), Metrics()
    kept = Limits(keep_ns=10**15)
    made = Outbox(
        file, max_bytes=2**24, commit_window_s=0.0, health=health, metrics=metrics, clock=clock, limits=kept
    )
    async with made:
        await made.subscribe("sink", EVENTS)
        await asyncio.gather(*(made.append(event(n)) for n in range(5)))
        records = await made.fetch("sink", 4)
        await made.refuse("sink", records[2:3], "503", most=9)
        await made.refuse("sink", records[3:4], "400 Bad Request", most=1)
        await made.ack("sink", records[:2])
        await made.append(event(5))
        yield made


@pytest.fixture
async def dxad(box, tmp_path):
    """Runs `dxad outbox` against a daemon."""
    gateway = Remembering()
    gateway.outbox = OutboxDesk(box, SystemClock())
    gateway.extra = {"outbox": box.snapshot(), "sinks": {"sink": {"up": False, "reason": "refused"}}}
    socket = tmp_path / "s"

    async def run(*words: str):
        command = [*words, "--socket", str(socket)]
        return await asyncio.to_thread(CliRunner().invoke, outbox, command, catch_exceptions=False)

    async with serving(gateway, socket):
        yield run


def offline(file, *words: str):
    return CliRunner().invoke(outbox, [*words, "--file", str(file)], catch_exceptions=False)


async def test_what_waits_is_told_in_a_table_and_a_sentence(dxad):
    done = await dxad()
    assert "sink: 3 events wait, the oldest since" in done.output
    assert ": refused" in done.output
    assert "400 Bad Request" in done.output
    told = json.loads((await dxad("--json")).output)
    assert told["overview"]["lanes"]["normal"]["stored"] == 6
    assert told["overview"]["sinks"]["sink"]["pending"] == 3


async def test_events_are_peeked_at(dxad):
    done = await dxad("peek", "-n", "2")
    assert "e5" in done.output
    assert "e3" not in done.output
    page = json.loads((await dxad("peek", "--sink", "sink", "--json")).output)
    assert [each["id"] for each in page["records"]] == ["e4", "e5"]
    other = await dxad("peek", "--sink", "other")
    assert (other.exit_code, "no sink 'other'; there are sink" in other.output) == (1, True)
    whole = json.loads((await dxad("peek", "--id", "e1")).output)
    assert whole["event"]["data"] == {"n": 1}
    missing = await dxad("peek", "--id", "e9")
    assert (missing.exit_code, "no record 'e9'" in missing.output) == (1, True)
    wrong = await dxad("peek", "--since", "yesterday")
    assert (wrong.exit_code, "neither a duration" in wrong.output) == (1, True)


async def test_a_replay_says_how_many(dxad, box):
    assert (await dxad("replay", "--since", "1h", "--sink", "sink", "--dry-run")).output == (
        "4 events would be offered to sink again\n"
    )
    done = await dxad("replay", "--since", "1h", "--sink", "sink", "--json")
    assert json.loads(done.output) == {"sink": "sink", "records": 4, "dry_run": False}
    assert box.backlog("sink").replayed == 4
    refused = await dxad("replay", "--since", "1h", "--sink", "other")
    assert (refused.exit_code, "there are sink" in refused.output) == (1, True)


async def test_dead_letters_are_listed_shown_retried_and_dropped(dxad, box):
    assert "400 Bad Request" in (await dxad("dead-letter", "list")).output
    assert json.loads((await dxad("dead-letter", "show", "1")).output)["event"]["data"] == {"n": 3}
    assert (await dxad("dead-letter", "show", "2")).exit_code == 1
    assert (await dxad("dead-letter", "drop")).exit_code == 2
    assert (await dxad("dead-letter", "retry", "1")).output == "1 dead letter will be offered again\n"
    assert [each.id for each in await box.refused("sink", 9)] == ["e2", "e3"]
    assert json.loads((await dxad("dead-letter", "drop", "--all", "--json")).output) == {"dropped": 0}


@pytest.mark.usefixtures("box")
async def test_events_are_exported_as_lines_and_as_a_table(dxad, tmp_path):
    lines = tmp_path / "events.jsonl"
    done = await dxad("export", "-o", str(lines))
    assert f"6 events written to {lines}" in done.output
    assert [json.loads(each)["id"] for each in lines.read_text().splitlines()] == [f"e{n}" for n in range(6)]
    again = await dxad("export", "-o", str(lines))
    assert (again.exit_code, "--force replaces it" in again.output) == (2, True)
    table = await dxad("export", "-o", "-", "--format", "csv", "--type", "dxad.incident.*")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [(each["id"], each["subject"], json.loads(each["data"])) for each in rows[:1]] == [
        ("e0", "pump", {"n": 0})
    ]
    nowhere = await dxad("export", "-o", str(tmp_path / "none" / "events.jsonl"))
    assert (nowhere.exit_code, "No such file or directory" in nowhere.output) == (1, True)
    letters = await dxad("export", "-o", "-", "--dead-letters")
    assert json.loads(letters.stdout)["reason"] == "400 Bad Request"
    assert {each.name for each in tmp_path.iterdir()} <= {
        "events.jsonl",
        "s",
        "outbox.db",
        "outbox.db-wal",
        "outbox.db-shm",
    }


class TestWithoutADaemon:
    @pytest.fixture
    async def closed(self, box, file):
        await box.close()
        return file

    async def test_the_file_is_read_and_that_is_said(self, closed):
        done = offline(closed)
        assert "read from the file" in done.output
        assert "sink: 3 events wait" in done.output

    async def test_events_dead_letters_and_exports_are_had_from_it(self, closed, tmp_path):
        assert "e5" in offline(closed, "peek").output
        assert json.loads(offline(closed, "peek", "--id", "e1").output)["event"]["data"] == {"n": 1}
        assert offline(closed, "peek", "--since", "yesterday").exit_code == 2
        assert "400 Bad Request" in offline(closed, "dead-letter", "list").output
        offline(closed, "export", "-o", str(tmp_path / "all.jsonl"))
        assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 6

    async def test_a_configuration_leads_to_it(self, closed, tmp_path):
        config = tmp_path / "dxad.toml"
        config.write_text(
            f'state_dir = "{tmp_path}"\n[gateway]\nid = "g"\n[control]\nsocket = "{tmp_path}/none.sock"\n'
            '[sources.s]\ntype = "serial"\nport = "/dev/null"\nperiod = "1s"\n'
            'decode = { kind = "csv", columns = ["x"] }\n'
        )
        done = await asyncio.to_thread(CliRunner().invoke, outbox, ["-c", str(config)])
        assert f"read from the file {closed}" in done.output

    async def test_what_only_a_daemon_can_do_says_so(self, closed, tmp_path):
        words = ["replay", "--since", "1h", "--sink", "sink", "--socket", str(tmp_path / "none.sock")]
        done = await asyncio.to_thread(CliRunner().invoke, outbox, words)
        assert (done.exit_code, "there is no such socket" in done.output) == (3, True)

    def test_nothing_to_look_at_is_told_with_what_to_do(self, tmp_path):
        done = CliRunner().invoke(outbox, ["--socket", str(tmp_path / "none.sock")], catch_exceptions=False)
        assert (done.exit_code, "(--file)" in done.output) == (3, True)
        assert offline(tmp_path / "none.db").exit_code == 2
