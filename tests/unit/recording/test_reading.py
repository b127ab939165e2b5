"""Recordings of each kind come back as they were written, and what is wrong with them is told by its line."""

import csv
import io
import zipfile

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.errors import ConfigError
from dxad.recording import CELLS_AT_ONCE, open_recording
from dxad.types import NS_PER_S, State

T0 = 1_581_168_647 * NS_PER_S  # 2020-02-08 13:30:47 UTC


def read(path, *, columns=None, **options):
    recording = open_recording(path, **options)
    pieces = list(recording.pieces(recording.columns if columns is None else columns))
    times = np.concatenate([each.times for each in pieces])
    values = np.concatenate([each.values for each in pieces])
    bad = np.concatenate(
        [np.zeros(each.values.shape, dtype=bool) if each.bad is None else each.bad for each in pieces]
    )
    return recording, times, values, bad


def written(tmp_path, text: str, name: str = "rec.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


class TestCsv:
    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    def test_the_separator_is_found(self, tmp_path, separator):
        text = "datetime,a,b\n2020-02-08 13:30:47,1.5,2\n2020-02-08 13:30:48,3,-4e2\n"
        recording, times, values, _ = read(written(tmp_path, text.replace(",", separator)))
        assert recording.columns == ("a", "b")
        assert times.tolist() == [T0, T0 + NS_PER_S]
        assert values.tolist() == [[1.5, 2.0], [3.0, -400.0]]

    @pytest.mark.parametrize(
        ("name", "first", "second", "step"),
        [
            ("time", "2020-02-08T13:30:47Z", "2020-02-08T13:30:47.000000001Z", 1),
            ("time", "2020-02-08T15:30:47+02:00", "2020-02-08T13:30:48Z", NS_PER_S),
            ("time", "1581168647", "1581168647.25", NS_PER_S // 4),
            ("time", "1581168647000", "1581168647001", 10**6),
            ("time", "1581168647000000", "1581168647000001", 10**3),
            ("time", "1581168647000000000", "1581168647000000001", 1),
            ("time_ms", "1581168647000", "1581168647000.5", 500_000),
            ("timestamp", "1.581168647e9", "1.581168648e9", NS_PER_S),
        ],
    )
    def test_times_are_dates_or_numbers_since_1970(self, tmp_path, name, first, second, step):
        _, times, _, _ = read(written(tmp_path, f"{name},a\n{first},1\n{second},2\n"))
        assert times.tolist() == [T0, T0 + step]

    def test_a_first_column_of_dates_is_the_time_whatever_it_is_called(self, tmp_path):
        recording, times, _, _ = read(written(tmp_path, "when,a\n2020-02-08 13:30:47,1\n"))
        assert (recording.columns, times.tolist()) == (("a",), [T0])

    def test_rows_without_a_time_are_a_period_apart(self, tmp_path):
        recording, times, _, _ = read(written(tmp_path, "a,b\n1,2\n\n3,4\n"), period=NS_PER_S)
        assert recording.columns == ("a", "b")
        assert times.tolist() == [0, 2 * NS_PER_S]  # the blank line took its place

    def test_without_time_and_period_it_is_no_recording(self, tmp_path):
        with pytest.raises(ConfigError, match=r"rec\.csv: no column of times.*period"):
            open_recording(written(tmp_path, "a,b\n1,2\n"))

    def test_empty_cells_are_missing_wherever_they_stand(self, tmp_path):
        text = "time,a,b,c\n1581168647,,,\n1581168648,1,,3\n1581168649,NaN,null,n/a\n1581168650,,2,\n"
        recording, _, values, bad = read(written(tmp_path, text))
        nan = np.nan
        np.testing.assert_array_equal(values, [[nan] * 3, [1, nan, 3], [nan] * 3, [nan, 2, nan]])
        assert not bad.any()
        assert recording.faults.cells == 0

    def test_the_word_bad_is_a_value_that_was_not_to_be_believed(self, tmp_path):
        recording, _, values, bad = read(written(tmp_path, "time,a,b\n1581168647,bad,2\n"))
        np.testing.assert_array_equal(values, [[np.nan, 2.0]])
        assert bad.tolist() == [[True, False]]
        assert recording.faults.cells == 0

    def test_what_cannot_be_read_is_told_with_its_line_and_does_not_stop_the_rest(self, tmp_path):
        text = "time,a,b\n1581168647,1,2\nnever,3,4\n1581168649,5\n1581168650,six,7\n1581168651,8,9\n"
        recording, times, values, bad = read(written(tmp_path, text))
        assert times.tolist() == [T0, T0 + 3 * NS_PER_S, T0 + 4 * NS_PER_S]
        assert values[0].tolist() == [1, 2]
        assert values[2].tolist() == [8, 9]
        assert bad.tolist() == [[False, False], [True, False], [False, False]]
        path = recording.path
        assert (recording.faults.lines, recording.faults.cells) == (2, 1)
        assert recording.faults.first == [
            f"{path}:3: 'never' is no time",
            f"{path}:4: has 2 cells, the header 3",
            f"{path}:5: a: 'six' is no number",
        ]

    def test_only_the_first_faults_are_told_and_all_are_counted(self, tmp_path):
        recording, *_ = read(written(tmp_path, "time,a\n" + "1581168647,x\n" * 100))
        assert recording.faults.cells == 100
        assert len(recording.faults.first) == 5

    def test_quoted_cells_and_a_byte_order_mark_are_read(self, tmp_path):
        path = tmp_path / "rec.csv"
        path.write_bytes('\ufefftime,"a, b"\n1581168647,"1.5"\n'.encode())
        recording, times, values, _ = read(path)
        assert recording.columns == ("a, b",)
        assert (times.tolist(), values.tolist()) == ([T0], [[1.5]])

    def test_columns_that_nobody_wants_may_hold_anything(self, tmp_path):
        path = written(tmp_path, "time,a,note\n1581168647,1,pump on\n1581168648,2,\n")
        recording, _, values, _ = read(path, columns=("a",))
        assert values.tolist() == [[1.0], [2.0]]
        assert recording.faults.lines == recording.faults.cells == 0

    def test_a_long_file_comes_in_pieces_of_bounded_size(self, tmp_path):
        rows = CELLS_AT_ONCE // 2 + 10
        path = written(tmp_path, "time,a\n" + "".join(f"{1581168647 + n},{n}\n" for n in range(rows)))
        recording = open_recording(path)
        sizes = [each.values.size + each.times.size for each in recording.pieces(("a",))]
        assert len(sizes) == 2
        assert max(sizes) <= CELLS_AT_ONCE
        _, _, values, _ = read(path)
        np.testing.assert_array_equal(values[:, 0], np.arange(rows))

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.lists(
                st.one_of(st.none(), st.just("bad"), st.floats(allow_nan=False)), min_size=3, max_size=3
            ),
            min_size=1,
            max_size=20,
        )
    )
    def test_what_python_s_own_reader_finds_is_found(self, tmp_path_factory, rows):
        path = tmp_path_factory.mktemp("csv") / "rec.csv"
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["time", "a", "b", "c"])
        for number, row in enumerate(rows):
            writer.writerow([1581168647 + number, *row])
        path.write_text(text.getvalue())
        _, times, values, bad = read(path)
        assert times.tolist() == [T0 + number * NS_PER_S for number in range(len(rows))]
        expected = [
            [cell if isinstance(cell, float) and np.isfinite(cell) else np.nan for cell in row]
            for row in rows
        ]
        np.testing.assert_array_equal(values, expected)
        assert bad.tolist() == [[cell == "bad" for cell in row] for row in rows]


class TestNpz:
    def saved(self, tmp_path, save=np.savez, **arrays):
        made = {
            "time_ns": T0 + np.arange(5) * NS_PER_S,
            "values": np.arange(10.0).reshape(5, 2),
            "channels": np.array(["s.a", "s.b"]),
        } | arrays
        path = tmp_path / "rec.npz"
        save(path, **made)
        return path

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_comes_back_whether_it_is_compressed_or_not(self, tmp_path, save):
        recording, times, values, _ = read(self.saved(tmp_path, save))
        assert recording.columns == ("s.a", "s.b")
        assert times.tolist() == [T0 + n * NS_PER_S for n in range(5)]
        np.testing.assert_array_equal(values, np.arange(10.0).reshape(5, 2))

    def test_states_say_what_came(self, tmp_path):
        states = np.full((5, 2), State.GOOD, dtype=np.uint8)
        states[1, 0], states[2, 0], states[3, 0], states[4, 0] = (
            State.HELD, State.BAD, State.EMPTY, State.UNCERTAIN,
        )  # fmt: skip
        _, _, values, bad = read(self.saved(tmp_path, states=states))
        np.testing.assert_array_equal(values[:, 0], [0, np.nan, np.nan, np.nan, 8])
        assert bad[:, 0].tolist() == [False, False, True, False, False]

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"values": np.arange(10.0).reshape(2, 5)}, "shape"),
            ({"values": np.asfortranarray(np.arange(10.0).reshape(5, 2))}, "Fortran"),
            ({"values": np.full((5, 2), None)}, "objects"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, arrays, message):
        with pytest.raises(ConfigError, match=message):
            open_recording(self.saved(tmp_path, **arrays))

    def test_what_is_no_archive_or_lacks_an_array_is_refused(self, tmp_path):
        path = tmp_path / "rec.npz"
        path.write_bytes(b"junk")
        with pytest.raises(ConfigError, match=r"rec\.npz"):
            open_recording(path)
        np.savez(path, values=np.zeros((1, 1)))
        with pytest.raises(ConfigError, match="has no channels and no time_ns"):
            open_recording(path)

    def test_a_damaged_archive_is_told_when_it_is_read(self, tmp_path):
        path = self.saved(tmp_path)
        recording = open_recording(path)
        with zipfile.ZipFile(path) as archive:
            offset = archive.getinfo("values.npy").header_offset
        raw = bytearray(path.read_bytes())
        raw[offset + 200] ^= 0xFF
        path.write_bytes(raw)
        with pytest.raises(ConfigError, match=r"rec\.npz"):
            list(recording.pieces(recording.columns))


class TestJsonLines:
    def test_lines_may_name_different_channels(self, tmp_path):
        lines = [
            {"time": "2020-02-08T13:30:47Z", "a": 1, "run": True},
            {"time": "2020-02-08T13:30:48Z", "b": 2.5, "a": None},
            {"time": "2020-02-08T13:30:49Z", "a": "bad"},
        ]
        path = tmp_path / "rec.jsonl"
        path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
        recording, times, values, bad = read(path)
        assert recording.columns == ("a", "run", "b")
        assert times.tolist() == [T0 + n * NS_PER_S for n in range(3)]
        nan = np.nan
        np.testing.assert_array_equal(values, [[1, 1, nan], [nan, nan, 2.5], [nan, nan, nan]])
        assert bad.tolist() == [[False] * 3, [False] * 3, [True, False, False]]

    def test_what_cannot_be_read_is_told_with_its_line(self, tmp_path):
        text = '{"time": 1581168647, "a": 1}\nnot json\n{"a": 2}\n{"time": 1581168648, "a": [1]}\n\n'
        recording, times, *_ = read(written(tmp_path, text, "rec.jsonl"))
        assert times.tolist() == [T0, T0 + NS_PER_S]
        assert (recording.faults.lines, recording.faults.cells) == (2, 1)
        assert [each.split("rec.jsonl")[1] for each in recording.faults.first] == [
            ":2: is no JSON object", ":3: None is no time", ":4: a: [1] is no number",
        ]  # fmt: skip

    def test_a_file_without_an_object_is_no_recording(self, tmp_path):
        with pytest.raises(ConfigError, match="no line of it is a JSON object"):
            open_recording(written(tmp_path, "[1]\n", "rec.jsonl"))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv: No such file"):
        open_recording(tmp_path / "none.csv")


def test_the_digest_is_of_the_content_alone(tmp_path):
    first, second = (written(tmp_path, "time,a\n1581168647,1\n", name) for name in ("x.csv", "y.csv"))
    other = written(tmp_path, "time,a\n1581168647,2\n", "z.csv")
    digests = [open_recording(each).digest for each in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]
