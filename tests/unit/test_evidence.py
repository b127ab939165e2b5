"""The rows around an incident: taped, packed, kept in files, and had again."""

import csv
import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.config import IncidentsSection
from dxad.incident.archive import Archive
from dxad.incident.docket import Docket
from dxad.incident.evidence import (
    PACKED_BYTES_MAX,
    TAPE_BYTES,
    Evidence,
    Tape,
    Window,
    as_csv,
    as_document,
    pack,
    unpack,
)
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Channel, State

PERIOD = NS_PER_S // 10
SCORES = (Channel("score.raw"), Channel("score.judged"))
ID = "5b" * 16


def window(n: int, channels: int = 3, *, incident: str = ID, seed: int = 0) -> Window:
    rng = np.random.default_rng(seed)
    return Window(
        incident, tuple(Channel(f"s.c{n}", "bar") for n in range(channels)), PERIOD, 1, 10**18,
        np.arange(1000, 1000 + n), rng.normal(size=n).astype(np.float32),
        rng.normal(size=(n, channels)).astype(np.float32),
        rng.integers(0, len(State), (n, channels)).astype(np.uint8),
    )  # fmt: skip


def assert_same(found: Window, expected: Window) -> None:
    assert (found.incident, found.channels, found.period, found.every, found.first_utc) == (
        expected.incident, expected.channels, expected.period, expected.every, expected.first_utc,
    )  # fmt: skip
    np.testing.assert_array_equal(found.slots, expected.slots - expected.slots[:1])
    for name in ("scores", "values", "states"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


class TestPacking:
    @pytest.mark.parametrize("n", [0, 1, 7, 500])
    def test_keeps_every_bit(self, n):
        assert_same(unpack(pack(window(n))), window(n))

    def test_that_would_be_too_large_keeps_every_other_row_and_says_so(self):
        packed = pack(window(4000, channels=50))
        found = unpack(packed)
        assert len(packed) <= PACKED_BYTES_MAX < len(pack(window(500, channels=50))) * 8
        assert found.every > 1
        assert len(found) == 4000 // found.every
        assert np.diff(found.slots).tolist() == [found.every] * (len(found) - 1)

    @pytest.mark.parametrize("cut", [0, 10, 100, -1])
    def test_that_was_damaged_is_refused(self, cut):
        with pytest.raises(ValueError, match=r"no packed window|not whole"):
            unpack(pack(window(100))[:cut])

    def test_that_unpacks_to_more_than_it_says_is_refused(self):
        packed = pack(window(1000))
        with pytest.raises(ValueError, match="not whole"):
            unpack(packed.replace(b'"rows":1000', b'"rows":10'))

    def test_as_json(self):
        document = as_document(window(100), 30)
        assert document["every"] == 4
        assert document["rows"] == len(document["utc_ns"]) == len(document["score"]) == 25
        assert {len(each["values"]) for each in document["channels"]} == {25}
        assert set("".join(each["states"] for each in document["channels"])) <= set("eghub")
        assert as_document(window(300, channels=199), 300)["rows"] <= 100

    def test_as_csv(self):
        source = window(3)
        source.values[1, 0] = np.nan
        lines = list(csv.reader(io.StringIO(as_csv(source))))
        assert lines[0] == ["time", "score", "s.c0", "s.c1", "s.c2"]
        assert [each[0] for each in lines[1:]] == [
            "2001-09-09T01:46:40.000000Z", "2001-09-09T01:46:40.100000Z", "2001-09-09T01:46:40.200000Z",
        ]  # fmt: skip
        assert lines[2][2] == ""
        assert float(lines[1][2]) == pytest.approx(source.values[0, 0], rel=1e-6)


class TestTape:
    @settings(max_examples=30)
    @given(
        n=st.integers(0, 3000),
        width=st.sampled_from([1, 40, 300]),
        cuts=st.lists(st.integers(1, 400), min_size=1, max_size=20),
    )
    def test_holds_the_same_rows_however_they_were_cut_and_no_more_than_it_may(self, n, width, cuts):
        channels = tuple(Channel(f"s.{n}") for n in range(width))
        rings = [RingBuffer(each, period=PERIOD, slots=400, start=77) for each in (channels, SCORES)]
        tape, stop = Tape(channels, 77), 77 + n
        turns = iter(cuts * (n // len(cuts) + 1))
        while rings[0].sealed < stop:
            size = min(next(turns), stop - rings[0].sealed)
            slots = np.arange(rings[0].sealed, rings[0].sealed + size)
            for ring in rings:
                values = np.repeat(slots[:, None], len(ring.channels), axis=1).astype(np.float64)
                ring.append(int(slots[0]), values, np.ones(values.shape, dtype=np.uint8))
            tape.extend(*rings, rings[0].sealed)
        found = tape.window(ID, PERIOD, 0)
        capacity = max(16, TAPE_BYTES // (5 * width + 12))
        every = 1
        while len(expected := [slot for slot in range(77, stop) if slot % every == 0]) > capacity:
            every *= 2
        assert (found.slots.tolist(), found.every) == (expected, every)
        assert found.values[:, 0].tolist() == found.scores.tolist() == expected

    def test_what_single_precision_cannot_hold_stands_at_its_edge(self):
        rings = [RingBuffer(each, period=1, slots=9, start=0) for each in ((Channel("s.a"),), SCORES)]
        rings[0].append(0, np.array([[1e300], [np.nan]]), np.array([[1], [4]], dtype=np.uint8))
        rings[1].append(0, np.zeros((2, 2)), np.ones((2, 2), dtype=np.uint8))
        tape = Tape(rings[0].channels, 0)
        tape.extend(*rings, 2)
        assert tape.window(ID, 1, 0).values[0, 0] == np.finfo(np.float32).max
        assert tape.quality(0) == {"good": 0.5, "bad": 0.5}
        assert tape.series([0], 0, NS_PER_S, 60)["channels"]["s.a"] == [3.4028e38, None]


class TestFiles:
    def test_keep_what_they_were_given_and_replace_it(self, tmp_path):
        evidence = Evidence(tmp_path / "evidence", files=5, size=2**20)
        assert evidence.get(ID) is None
        evidence.put(window(10))
        evidence.put(window(20))
        assert_same(evidence.get(ID), window(20))
        assert [each.name for each in (tmp_path / "evidence").iterdir()] == [f"{ID}.window"]

    @pytest.mark.parametrize(("files", "size"), [(3, 2**30), (100, 3 * 14_000)])
    def test_the_oldest_goes_when_there_are_too_many_or_too_much(self, tmp_path, files, size):
        evidence = Evidence(tmp_path, files=files, size=size)
        ids = [f"{n:032x}" for n in range(6)]
        for n, each in enumerate(ids):
            evidence.put(window(1000, incident=each, seed=n))
        kept = [each for each in ids if evidence.get(each) is not None]
        assert kept == ids[-len(kept) :]
        assert 1 <= len(kept) <= 3
        assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= size

    def test_the_newest_stays_though_somebody_has_set_the_clock_back_by_years(self, tmp_path):
        evidence = Evidence(tmp_path, files=2, size=2**30)
        ids = [f"{n:032x}" for n in range(4)]
        for each in ids:
            evidence.put(window(10, incident=each))
            for path in tmp_path.iterdir():
                ahead = path.stat().st_mtime_ns + 10 * 365 * 86_400 * NS_PER_S
                os.utime(path, ns=(ahead, ahead))
        assert [each for each in ids if evidence.get(each) is not None] == ids[-2:]

    @pytest.mark.parametrize("incident", ["", "../../etc/passwd", "5b", ID + "/x", ID.upper()])
    def test_only_an_id_is_looked_for(self, tmp_path, incident):
        (tmp_path / "5b.window").write_bytes(pack(window(1)))
        assert Evidence(tmp_path, files=5, size=2**20).get(incident) is None

    def test_one_that_is_damaged_is_as_good_as_none(self, tmp_path):
        (tmp_path / f"{ID}.window").write_bytes(b"{}\nx")
        assert Evidence(tmp_path, files=5, size=2**20).get(ID) is None

    @pytest.mark.parametrize("options", [{"files": 0, "size": 9}, {"files": 9, "size": 0}])
    def test_none_are_kept_where_none_are_wanted(self, tmp_path, options):
        Evidence(tmp_path / "e", **options).put(window(5))
        assert not (tmp_path / "e").exists()


class TestArchive:
    @pytest.fixture
    def clock(self):
        return SteppedClock()

    def archive(self, folder, clock) -> tuple[Archive, Docket, Health]:
        docket, health = Docket(IncidentsSection(), gateway="gw", boot="b"), Health(clock)
        evidence = Evidence(folder, files=5, size=2**20)
        self.metrics = Metrics()
        archive = Archive(docket, evidence, clock=clock, health=health, metrics=self.metrics)
        return archive, docket, health

    def test_a_docket_without_an_archive_keeps_no_windows(self):
        docket = Docket(IncidentsSection(), gateway="gw", boot="b")
        docket.keep(window(5))
        assert not docket.windows

    async def test_what_the_docket_has_is_stored_and_can_be_had(self, tmp_path, clock):
        archive, docket, _ = self.archive(tmp_path, clock)
        docket.keep(window(5))
        archive.store()
        assert not docket.windows
        assert (await archive.document(ID, 100))["rows"] == 5
        assert (await archive.csv(ID)).count("\n") == 6
        assert await archive.document("00" * 16, 100) is None
        assert await archive.csv("00" * 16) is None

    async def test_what_comes_faster_than_it_is_stored_is_counted_and_said_once(
        self, tmp_path, clock, caplog
    ):
        archive, docket, _ = self.archive(tmp_path, clock)
        for _ in range(2):
            for _ in range(10):
                docket.keep(window(5))
            archive.store()
        assert docket.windows_lost == 12
        assert self.metrics.total("dxad_evidence_lost_total") == 12
        assert caplog.text.count("more incidents ended at once") == 1

    async def test_a_disk_that_fails_is_a_condition_until_it_works(self, tmp_path, clock):
        (tmp_path / "file").touch()
        archive, docket, health = self.archive(tmp_path / "file", clock)
        docket.keep(window(5))
        archive.store()
        assert [each.code for each in health.active] == ["evidence.failed"]
        assert self.metrics.total("dxad_evidence_lost_total") == 1
        (tmp_path / "file").unlink()
        docket.keep(window(5))
        archive.store()
        assert not health.active
