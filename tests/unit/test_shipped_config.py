"""The shipped configuration is documentation that runs: every key, with its meaning and its default."""

import inspect
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from dxad import config, plugin
from dxad.cli.check import check
from dxad.config import Config, PipelineSection
from dxad.fields import Section
from dxad.tomlines import locate

FOLDER = Path(__file__).parents[2] / "config"
SAMPLE = FOLDER / "dxad.toml"
SCHEMA = json.loads((FOLDER / "dxad.schema.json").read_text())
FILES = [SAMPLE, *sorted((FOLDER / "examples").glob("*.toml"))]


def uncommented() -> str:
    """The sample with every key that it only tells of."""
    return re.sub(r"^#(?=\[|[\w-]+ = )", "", SAMPLE.read_text(), flags=re.MULTILINE)


def sections(value: Any, raw: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[Section, dict, tuple]]:
    """Every table of a configuration, as it was understood, as it was written, and where."""
    if isinstance(value, Section):
        yield value, raw, at
        for name, field in type(value).model_fields.items():
            key = field.alias or name
            if key in raw:
                yield from sections(getattr(value, name), raw[key], (*at, key))
    elif isinstance(value, dict) and isinstance(raw, dict):
        for key, each in value.items():
            written = key if key in raw else key.rpartition("-")[0]  # one of a template's pipelines
            if isinstance(raw, dict) and written in raw:  # else it stands in a register map
                yield from sections(each, raw[written], (*at, written))
    elif isinstance(value, tuple):
        for place, each in enumerate(value):
            yield from sections(each, raw[place] if isinstance(raw, list) else {}, (*at, place))


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Config:
    path = tmp_path_factory.mktemp("c") / "dxad.toml"
    path.write_text(uncommented())
    shutil.copytree(FOLDER / "examples", path.parent / "examples")
    return config.load(path)


@pytest.fixture(scope="module")
def written(everything) -> list[tuple[Section, dict, tuple]]:
    return list(sections(everything, tomllib.loads(uncommented())))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_shipped_file_is_right_as_it_is(path):
    assert config.load(path).pipelines


def owner(kind: type[BaseModel], name: str) -> type:
    """The class of a section that declares the key."""
    return next(each for each in kind.__mro__ if name in inspect.get_annotations(each))


def kinds() -> Iterator[type[BaseModel]]:
    """The configuration of every plug-in that has a place in a file."""
    for family in ("sources", "sinks", "transforms", "models", "decode"):
        for name in plugin.names(family):
            found = plugin.load(family, name).config
            if not getattr(found, "in_process", False):
                yield found


def test_every_key_of_every_section_stands_in_the_sample(written):
    used = {
        (owner(type(section), name), name)
        for section, raw, _ in written
        for name, field in type(section).model_fields.items()
        if (field.alias or name) in raw
    }
    wanted = {type(section) for section, _, _ in written} | set(kinds()) | {Config, PipelineSection}
    missing = {
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in wanted
        for name in kind.model_fields
        if (owner(kind, name), name) not in used
    }
    assert missing - {"dxad.fields.Secret.env"} == set()
    assert "{ env = " in SAMPLE.read_text()


def test_every_default_in_the_sample_is_the_default(written):
    lines, places = uncommented().splitlines(), locate(uncommented())
    wrong, compared = [], 0
    for section, raw, at in written:
        for name, field in type(section).model_fields.items():
            key = field.alias or name
            if key not in raw or field.is_required() or field.default in (None, "", (), {}):
                continue
            line = lines[places[*at, key] - 1] if (*at, key) in places else ""
            if "for example" in line or isinstance(field.default, BaseModel | dict):
                continue
            compared += 1
            if getattr(section, name) != field.default:
                wrong.append(f"{'.'.join(map(str, at))}.{key} is {raw[key]!r}, not {field.default!r}")
    assert wrong == []
    assert compared > 30


def test_the_schema_is_the_one_of_this_version():
    printed = CliRunner().invoke(check, ["--schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == SCHEMA, "dxad check --schema > config/dxad.schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_shipped_file_is_right_by_the_schema_too(path):
    text = uncommented() if path == SAMPLE else path.read_text()
    jsonschema.validate(tomllib.loads(text), SCHEMA)
    assert text.startswith("#:schema ")
    assert (path.parent / text.split()[1]).exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("profle", "balanced"), ("profile", "fast"), ("sinks", {"a": {"type": "http"}}), ("memory_max", 5)],
)
def test_the_schema_refuses_what_is_wrong(key, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(SAMPLE.read_text()) | {key: value}, SCHEMA)


def described(schema: Any, at: str = "") -> Iterator[tuple[str, bool]]:
    """Every key of the schema, and whether it says what it means."""
    if isinstance(schema, dict):
        for name, each in schema.get("properties", {}).items():
            yield f"{at}.{name}", bool(each.get("description"))
        for key, each in schema.items():
            yield from described(each, f"{at}.{key}")
    elif isinstance(schema, list):
        for place, each in enumerate(schema):
            yield from described(each, f"{at}[{place}]")


def test_every_key_of_the_schema_says_what_it_means():
    found = [(key, told) for key, told in described(SCHEMA) if not key.endswith((".type", ".kind"))]
    assert len(found) > 60
    assert [key for key, told in found if not told] == []


def test_no_duration_and_no_size_is_shown_in_nanoseconds_or_bytes():
    assert not re.search(r'"default": \d{7,}', json.dumps(SCHEMA))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[sources.a]\ntype = "memory"\nperiod = "1s"\nchannels = { x = {} }\n', "sources.a.type"),
        (SAMPLE.read_text() + '\n[sinks.b]\ntype = "memory"\n', "sinks.b.type"),
    ],
)
def test_what_is_for_python_alone_has_no_place_in_a_file(tmp_path, text, key):
    (tmp_path / "dxad.toml").write_text(text)
    with pytest.raises(config.ConfigError, match=rf"dxad.toml:\d+: {key}: .* use from Python"):
        config.load(tmp_path / "dxad.toml")
