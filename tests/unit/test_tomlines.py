"""Each key of a TOML text stands on a line; compared with a writer that knows where it put them."""

import json
import random
import re
import tomllib
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.tomlines import Key, locate


def paths_of(node: Any, at: Key = ()) -> set[Key]:
    """All paths of a document, as `tomllib` has read it."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found: set[Key] = {at} if at else set()
    for name, child in children:
        found |= paths_of(child, (*at, name))
    return found


class Writer:
    """Writes a document in a style that dice choose, and notes the line of everything."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.text = ""
        self.lines: dict[Key, int] = {}

    def document(self, table: dict[str, Any]) -> str:
        self.body((), table)
        return self.text

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def note(self, key: Key) -> None:
        for length in range(1, len(key) + 1):
            self.lines.setdefault(key[:length], self.line)

    def blank(self) -> None:
        """What may stand between lines."""
        self.text += self.dice.choice(["", "", "\n", "# a [comment] = with 'quotes\n", "\t \n"])

    def end(self) -> None:
        self.text += self.dice.choice(["\n", "  # why\n", "\t\n"])

    def body(self, at: Key, table: dict[str, Any]) -> None:
        later: dict[str, Any] = {}
        for name, value in table.items():
            tables = isinstance(value, list) and value and all(isinstance(each, dict) for each in value)
            if (isinstance(value, dict) or tables) and self.dice.random() < 0.6:
                later[name] = value
                continue
            self.blank()
            self.pair(at, (name,), value)
        for name, value in later.items():
            if isinstance(value, dict):
                self.header((*at, name), value, "[", "]")
                continue
            for place, each in enumerate(value):
                self.header((*at, name, place), each, "[[", "]]")

    def header(self, at: Key, table: dict[str, Any], opening: str, closing: str) -> None:
        self.blank()
        self.note(at)
        names = [part for part in at if isinstance(part, str)]
        self.text += f"{opening} {self.dotted(names)} {closing}"
        self.end()
        self.body(at, table)

    def pair(self, at: Key, names: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict) and value and self.dice.random() < 0.5:
            for name, child in value.items():
                self.pair(at, (*names, name), child)
            return
        self.note((*at, *names))
        self.text += self.dotted(names) + self.dice.choice(["=", " = ", "\t= "])
        self.value((*at, *names), value, inline=False)
        self.end()

    def dotted(self, names: Any) -> str:
        return self.dice.choice([".", " . "]).join(self.name(each) for each in names)

    def name(self, text: str) -> str:
        styles = [json.dumps(text)]
        if re.fullmatch("[A-Za-z0-9_-]+", text):
            styles.append(text)
        if "'" not in text and text.isprintable():
            styles.append(f"'{text}'")
        return self.dice.choice(styles)

    def value(self, at: Key, value: Any, *, inline: bool) -> None:
        """`inline`: inside an inline table, where no line may end."""
        self.lines.setdefault(at, self.line)
        match value:
            case dict():
                self.text += "{"
                for place, (name, child) in enumerate(value.items()):
                    self.text += ", " if place else " "
                    self.note((*at, name))
                    self.text += f"{self.name(name)} = "
                    self.value((*at, name), child, inline=True)
                self.text += " }"
            case list():
                self.text += "["
                for place, child in enumerate(value):
                    self.text += "," if place else ""
                    self.gap(inline=inline)
                    self.value((*at, place), child, inline=inline)
                if value and self.dice.random() < 0.3:
                    self.text += ","
                self.gap(inline=inline)
                self.text += "]"
            case str():
                self.text += self.string(value, inline=inline)
            case bool():
                self.text += str(value).lower()
            case datetime() | date() | time():
                self.text += self.dice.choice([value.isoformat(), str(value)])
            case _:
                self.text += repr(value)

    def gap(self, *, inline: bool) -> None:
        """Within an array lines may end, unless it stands in an inline table."""
        self.text += self.dice.choice([" ", ""] if inline else [" ", "", "\n  ", "  # one, two ]\n", "\n\n"])

    def string(self, text: str, *, inline: bool) -> str:
        styles = [json.dumps(text).replace("\x7f", "\\u007f")]
        plain = text.replace("\n", "").isprintable()
        if plain and "'" not in text and "\n" not in text:
            styles.append(f"'{text}'")
        if plain and not inline:
            escaped = text.replace("\\", "\\\\").replace('"""', '""\\"')
            styles.append(f'"""\n{escaped}\\\n   """' if not escaped.endswith('"') else f'"""\n{escaped}"""')
            if "'''" not in text and not text.endswith("'"):
                styles.append(f"'''\n{text}'''")
        return self.dice.choice(styles)


alphabet = st.sampled_from(list("ab1_-") + list(" .=#[]{},\"'\\\n") + ["é", "\t", "\x01"])
names = st.one_of(st.sampled_from(["type", "url", "period", "a", "b"]), st.text(alphabet, max_size=4))
scalars = st.one_of(
    st.text(alphabet, max_size=12),
    st.integers(-(10**6), 10**6),
    st.booleans(),
    st.floats(allow_nan=False),
    st.datetimes(),
    st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    st.times(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, max_size=3),
        st.lists(st.dictionaries(names, inner, max_size=3), min_size=1, max_size=3),
    ),
    max_leaves=12,
)


@given(document=st.dictionaries(names, values, max_size=5), seed=st.integers(0, 2**32))
def test_every_table_key_and_element_is_on_the_line_where_it_was_written(document, seed):
    writer = Writer(random.Random(seed))
    text = writer.document(document)
    read = tomllib.loads(text)
    assert read == document, "the writer writes what it was given"
    found = locate(text)
    assert set(found) == paths_of(read)
    assert found == writer.lines


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_an_example_as_people_write_it(ending):
    text = """\
# the plant
log = "info"

[sources.plc]
type = "modbus"
[sources.plc.channels]
flow = { register = "input:30", range = [
    0,
    400,
] }
"motor.current" = { unit = 'A' }   # quoted

[[pipelines]]
name = "a"
[[pipelines]]
name = '''
b'''
steps = [ { type = "x" },
          { type = "y" } ]
[pipelines.alarm]
limit = 2
"""
    found = locate(text.replace("\n", ending))
    assert found["log",] == 2
    assert found["sources",] == found["sources", "plc"] == 4
    assert found["sources", "plc", "channels", "flow", "register"] == 7
    assert found["sources", "plc", "channels", "flow", "range", 1] == 9
    assert found["sources", "plc", "channels", "motor.current", "unit"] == 11
    assert found["pipelines", 1] == 15
    assert found["pipelines", 1, "name"] == 16
    assert found["pipelines", 1, "steps", 1, "type"] == 19
    assert found["pipelines", 1, "alarm", "limit"] == 21


def test_an_empty_text_has_no_keys():
    assert locate("") == locate("\n# nothing\n") == {}
