"""TOML becomes one valid configuration, or every mistake at once, each with file, line and key."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from dxad.config import Config, load, parse, schema, shape, where
from dxad.errors import ConfigError, Problem
from dxad.fields import Secret
from dxad.types import NS_PER_S, Channel
from tests.unit.configfiles import SOUND, problems_of, without, write

MS = 1_000_000


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "dxad.toml"
    path.write_text(SOUND)
    return path


# What is sound.


def test_the_design_s_own_example_is_read(file):
    config = load(file)
    assert config.gateway.id == "plant7-gw3"
    assert config.sources["plc"].period == 100 * MS
    assert config.pipelines["pump"].window == 5 * NS_PER_S
    assert config.outbox.max_size == 256 * 2**20
    assert config.channels[:2] == (
        Channel("plc.flow", "l/min", (0.0, 400.0)),
        Channel("plc.pressure", "bar"),
    )
    found = shape(config.pipelines["pump"], config.sources)
    assert [channel.id for channel in found.outputs.channels] == [
        "plc.flow", "plc.pressure", "vib.x.rms", "vib.y.rms", "vib.z.rms",
    ]  # fmt: skip


def test_what_is_not_said_has_its_default(file):
    config = load(without(file, "[outbox]", "max_size", "alarm", "[gateway]", "id "))
    assert config.gateway.id == "dxad"
    assert config.pipelines["pump"].alarm.on_delay == NS_PER_S
    assert config.profile == "balanced"


@pytest.mark.parametrize(
    "example", sorted(Path(__file__).parents[2].glob("config/**/*.toml")), ids=lambda p: p.name
)
def test_every_configuration_that_is_shipped_is_sound(example):
    load(example)


def test_a_configuration_is_frozen(file):
    config = load(file)
    with pytest.raises(ValidationError, match="frozen"):
        config.gateway.id = "other"


def test_a_document_can_be_built_in_code():
    document = {"sources": {"s": {"type": "memory", "period": "1s", "channels": {"a": {}}}}}
    assert parse(document).channels == (Channel("s.a"),)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("250ms", 250 * MS), ("1.5s", 1500 * MS), ("2 min", 120 * NS_PER_S), ("24h", 86_400 * NS_PER_S),
     ("7d", 7 * 86_400 * NS_PER_S), ("10us", 10_000), ("1ns", 1)],
)  # fmt: skip
def test_a_duration_is_a_number_with_a_unit(text, nanoseconds):
    document = {"sources": {"s": {"type": "memory", "period": text, "channels": {"a": {}}}}}
    assert parse(document).sources["s"].period == nanoseconds


# Every mistake at once.


def test_seven_different_mistakes_are_seven_problems_each_with_its_line(tmp_path):
    path = write(
        tmp_path,
        """\
        [gateway]
        idd = "plant7"

        [sources.plc]
        type = "modbus"
        url = "tcp://127.0.0.1:5020"
        period = 100
        [sources.plc.channels]
        flow = { register = "input:30", encoding = "float32", scale = "0.1" }

        [sources.motor]
        type = "mqqt"
        url = "mqtt://127.0.0.1"
        period = "100ms"

        [sources.vib]
        type = "serial"
        port = "/dev/ttyUSB0"
        period = "10ms"
        decode = { kind = "csv", columns = ["speed", "noise"] }

        [pipelines.typo]
        channels = [
            "vib.noise",
            "vib.spead",
        ]

        [pipelines.uneven]
        channels = ["vib.*"]
        window = "15ms"
        model = { type = "zscore" }
        """,
    )
    assert problems_of(path) == [
        ("dxad.toml:2", "gateway.idd", "unknown key, did you mean 'id'?"),
        ("dxad.toml:7", "sources.plc.period", '100 has no unit; write "100ms" or "100s"'),
        ("dxad.toml:9", "sources.plc.channels.flow.scale", "Input should be a valid number"),
        ("dxad.toml:12", "sources.motor.type", "no source of type 'mqqt', did you mean 'mqtt'?"),
        ("dxad.toml:22", "pipelines.typo.model", "is missing"),
        ("dxad.toml:25", "pipelines.typo.channels.1", "no channel 'vib.spead', did you mean 'vib.speed'?"),
        ("dxad.toml:30", "pipelines.uneven.window",
         "15 ms is no multiple of the pipeline's period, 10 ms"),
    ]  # fmt: skip


def test_the_error_reads_as_a_list_for_people(tmp_path):
    path = write(tmp_path, "log = 'loud'\n[gateway]\nidd = 'x'\n")
    with pytest.raises(ConfigError) as refused:
        load(path)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"{path}: sources: is missing")
    assert lines[1].startswith(f"{path}:1: log: ")
    assert lines[2] == f"{path}:3: gateway.idd: unknown key, did you mean 'id'?"


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "message"),
    [
        ('period = "10ms"', "", 12, "sources.vib.period", "is missing"),
        ('"10ms"', '"10 parsecs"', 15, "sources.vib.period", "is not a number and one of"),
        ('"10ms"', '"0ms"', 15, "sources.vib.period", "is not more than 0ms"),
        ("[0, 400]", "[400, 0]", 9, "sources.plc.channels.flow", "range: 400.0 is not below 0.0"),
        ("input:30", "inputs:30", 9, "sources.plc.channels.flow.register", "is no register"),
        ('"5s"', '"250ms"', 21, "pipelines.pump.window", "250 ms is no multiple of the pip"),
        ('"5s"', '"50ms"', 21, "pipelines.pump.window", "50 ms is no multiple"),
        ('"smooth"', '"smoth"', 23, "pipelines.pump.transforms.0.type", "did you mean 'smooth'?"),
        ('span = "1s"', 'span = "150ms"', 23, "pipelines.pump.transforms.0", "span is no multiple"),
        (', every = "100ms"', ', every = "15ms"', 22, "pipelines.pump.features.0", "every is no multiple"),
        ('"vib.*"]', '"vob.*"]', 19, "pipelines.pump.channels.2", "no channel 'vob.*'"),
        ('"plc.flow"', '"flow"', 19, "pipelines.pump.channels.0", "a channel is source.name"),
        ("severity", "severety", 25, "pipelines.pump.alarm.severety", "did you mean 'severity'?"),
        ('"256MiB"', '"256"', 28, "outbox.max_size", "is not a number and one of"),
        ('type = "http"\n', "", 30, "sinks.reasoning", "type is missing; known: "),
        ('url = "http://127', 'url = "127', 32, "sinks.reasoning.url", "such as https://host:8900/events"),
        ("[sinks.reasoning]", '[sinks."a b"]', 30, "sinks.a b.[key]", "a name has letters, digits"),
        ('id = "plant7-gw3"', "id = 7", 2, "gateway.id", "should be a valid string"),
        ('kind = "csv"', 'kind = "cvs"', 16, "sources.vib.decode.kind", "did you mean 'csv'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_stands(*, file, old, new, line, key, message):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    found = problems_of(file)
    assert [(each[0], each[1]) for each in found] == [(f"dxad.toml:{line}", key)]
    assert message in found[0][2]


def test_what_may_be_of_a_broken_source_is_not_told_twice(file):
    file.write_text(file.read_text().replace('"10ms"', "10"))
    assert [key for _, key, _ in problems_of(file)] == ["sources.vib.period"]


def test_a_file_that_is_no_toml_says_where(tmp_path):
    path = write(tmp_path, "[gateway]\nid = plant7\n")
    assert problems_of(path) == [("dxad.toml:2", "", "Invalid value")]


def test_a_file_that_is_not_there_says_so(tmp_path):
    assert problems_of(tmp_path / "dxad.toml") == [("dxad.toml", "", "No such file or directory")]


def test_a_file_that_is_not_utf_8_says_so(tmp_path):
    (tmp_path / "dxad.toml").write_bytes(b'id = "\xff"')
    assert problems_of(tmp_path / "dxad.toml") == [
        ("dxad.toml", "", "is not UTF-8: invalid start byte at byte 6")
    ]


def test_all_files_that_cannot_be_read_are_told_at_once(tmp_path):
    path = write(tmp_path, "x = \n")
    write(tmp_path, "y = \n", "conf.d/a.toml")
    assert [where for where, _, _ in problems_of(path)] == ["dxad.toml:1", "conf.d/a.toml:1"]


# conf.d, and where things are.


def test_later_files_go_over_earlier_ones_table_by_table(file, tmp_path):
    write(tmp_path, "log = 'debug'\n[gateway]\nid = 'first'\n", "conf.d/10-site.toml")
    write(tmp_path, "[gateway]\nid = 'second'\n[pipelines.pump.alarm]\nlimit = 3.5\n", "conf.d/20-local.toml")
    write(tmp_path, "[gateway]\nid = 'never'\n", "conf.d/ignored.toml.bak")
    config = load(file)
    assert (config.gateway.id, config.log) == ("second", "debug")
    alarm = config.pipelines["pump"].alarm
    assert (alarm.limit, alarm.on_delay, alarm.off_delay) == (3.5, NS_PER_S, 30 * NS_PER_S)


def test_an_array_is_replaced_and_not_mixed(file, tmp_path):
    write(
        tmp_path,
        "[pipelines.pump]\nchannels = ['plc.flow']\nfeatures = []\ntransforms = []\n",
        "conf.d/a.toml",
    )
    assert load(file).pipelines["pump"].channels == ("plc.flow",)


def test_a_mistake_is_told_in_the_file_that_made_it(file, tmp_path):
    write(tmp_path, "\n[pipelines.pump.alarm]\non_delay = 3\n", "conf.d/a.toml")
    assert problems_of(file) == [
        ("conf.d/a.toml:3", "pipelines.pump.alarm.on_delay", '3 has no unit; write "3ms" or "3s"')
    ]


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("pipelines.pump.alarm.limit=3", lambda c: c.pipelines["pump"].alarm.limit == 3),
        ("pipelines.pump.alarm.on_delay=5s", lambda c: c.pipelines["pump"].alarm.on_delay == 5_000_000_000),
        (
            'pipelines.pump.alarm.on_delay = "5s"',
            lambda c: c.pipelines["pump"].alarm.on_delay == 5_000_000_000,
        ),
        ("pipelines.pump.channels.0=*.*", lambda c: c.pipelines["pump"].channels[0] == "*.*"),
        ("gateway.id=other-1", lambda c: c.gateway.id == "other-1"),
        ("pipelines.pump.features=[]", lambda c: c.pipelines["pump"].features == ()),
        (
            'pipelines.pump.model={ type = "zscore", warm_up = 17 }',
            lambda c: c.pipelines["pump"].model.warm_up == 17,
        ),
    ],
)
def test_an_override_goes_over_the_file(file, override, found):
    assert found(load(file, [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "pipelines.pump.alarm.limt=3",
            "--set pipelines.pump.alarm.limt=3: pipelines.pump.alarm.limt: unknown key, did you mean",
        ),
        ("pipelines.pump.alarm.limit=-1", "--set pipelines.pump.alarm.limit=-1: pipelines.pump.alarm.limit"),
        (
            'pipelines.pump.model={ type = "zscore", warm = 1 }',
            '--set pipelines.pump.model={ type = "zscore", warm = 1 }: pipelines.pump.model',
        ),
        ("gateway.id.x=1", "--set gateway.id.x=1: gateway.id.x: id is no table"),
        (
            "pipelines.pump.channels.9=x.y",
            "--set pipelines.pump.channels.9=x.y: pipelines.pump.channels.9: '9' is no place in it",
        ),
        ("nonsense", "--set nonsense: wants KEY=VALUE"),
        ("=3", "--set =3: wants KEY=VALUE"),
        ("a b=3", "--set a b=3: Expected '='"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(file, override, message):
    with pytest.raises(ConfigError) as told:
        load(file, [override])
    assert any(str(each).startswith(message) for each in told.value.problems)


def test_the_state_directory_is_systemd_s_unless_the_file_says_otherwise(file, monkeypatch, tmp_path):
    assert load(file).state_dir == Path("/var/lib/dxad")
    monkeypatch.setenv("STATE_DIRECTORY", "/run/state")
    assert load(file).state_dir == Path("/run/state")
    file.write_text('state_dir = "mine"\n' + SOUND)
    assert load(file).state_dir == tmp_path / "mine"


# Secrets.

PASSWORD = "correct horse battery staple"


def with_secret(folder: Path, secret: str) -> Path:
    return write(
        folder,
        f"""\
        [sources.motor]
        type = "mqtt"
        url = "mqtt://127.0.0.1"
        topic = "plant/motor"
        period = "100ms"
        username = "dxad"
        password = {secret}
        channels = {{ current = {{}} }}
        """,
    )


@pytest.mark.parametrize("how", ["env", "file", "credential"])
def test_a_secret_is_read_from_where_it_is_kept_and_shown_nowhere(tmp_path, monkeypatch, how):
    kept = write(tmp_path, PASSWORD + "\n", "secrets/mqtt")
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(kept.parent))
    name = {"env": "MQTT_PASSWORD", "file": str(kept), "credential": "mqtt"}[how]
    config = load(with_secret(tmp_path, f'{{ {how} = "{name}" }}'))
    password = config.sources["motor"].password
    assert password.read() == PASSWORD
    for shown in (repr(config), str(config), config.model_dump_json(), repr(password)):
        assert PASSWORD not in shown


def test_a_secret_that_was_written_into_the_file_is_refused_without_repeating_it(tmp_path):
    path = with_secret(tmp_path, f'"{PASSWORD}"')
    with pytest.raises(ConfigError) as refused:
        load(path)
    (problem,) = refused.value.problems
    assert (problem.where, problem.key) == (f"{path}:7", "sources.motor.password")
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in repr(refused.value)


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("{}", "give exactly one of credential, file and env"),
        ('{ env = "A", file = "/b" }', "give exactly one of credential, file and env"),
        ('{ enf = "A" }', "unknown key, did you mean 'env'?"),
    ],
)
def test_a_secret_has_one_place(tmp_path, secret, message):
    (found,) = problems_of(with_secret(tmp_path, secret))
    assert found[0] == "dxad.toml:7"
    assert message in found[2]


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (Secret(env="DXAD_TEST_NOBODY_SET_ME"), "the environment has no variable DXAD_TEST_NOBODY_SET_ME"),
        (Secret(file=Path("/nowhere/secret")), "secret /nowhere/secret: No such file or directory"),
        (Secret(credential="mqtt"), r"no \$CREDENTIALS_DIRECTORY: add LoadCredential= to the unit"),
    ],
)
def test_a_secret_that_is_not_there_says_where_it_was_looked_for(secret, message, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=message):
        secret.read()


# For editors.


def test_the_schema_names_every_plug_in_and_every_key():
    text = json.dumps(schema())
    for word in ("modbus", "mqtt", "opcua", "serial", "tflite", "zscore", "summarize", "on_delay", "keep"):
        assert f'"{word}"' in text
    assert schema()["additionalProperties"] is False


def test_a_problem_reads_as_an_editor_finds_it():
    assert str(Problem("a.toml:3", "x.y", "is missing")) == "a.toml:3: x.y: is missing"
    assert str(Problem("a.toml", "", "is not there")) == "a.toml: is not there"


def test_the_environment_is_not_read_for_anything_else(file, monkeypatch):
    for name in list(os.environ):
        if name.startswith("DXAD"):
            monkeypatch.delenv(name)
    before = load(file)
    monkeypatch.setenv("DXAD_LOG", "debug")
    assert load(file) == before
    assert isinstance(before, Config)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("pipelines.pump-a.model.path", 8),
        ("pipelines.pump-b.alarm.limit", 9),
        ("pipelines.pump-b.alarm.off_delay", 9),
        ("pipelines.pump-a.learn", 5),
        ("sources.plc.period", 4),
        ("outbox.path", None),
    ],
)
def test_the_place_of_a_key_can_be_asked_for_also_that_of_a_template(tmp_path, key, line):
    path = tmp_path / "dxad.toml"
    path.write_text(
        '[sources.plc]\ntype = "modbus"\nurl = "tcp://127.0.0.1:502"\nperiod = "1s"\n[pipelines.pump]\n'
        'for_each = ["a", "b"]\nchannels = ["plc.{each}"]\n'
        'model = { type = "tflite", path = "models/pump" }\n'
        "alarm = { limit = 3.0 }\n"
        '[sources.plc.channels]\na = { register = "input:1", encoding = "int16" }\n'
        'b = { register = "input:2", encoding = "int16" }\n'
    )
    assert load(path)
    assert where(path, key) == (str(path) if line is None else f"{path}:{line}")
