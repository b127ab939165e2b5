"""TOML in, one frozen and valid `Config` out; or every mistake at once, each with file, line and key.

`dxad.toml` is read first, then `conf.d/*.toml` beside it in alphabetical order; tables merge, anything else
is replaced by the later file.
"""

import difflib
import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import SchemaSerializer, core_schema

from dxad import plugin, telemetrysection, template, tomlfiles, topics, writing
from dxad.alarmsection import AlarmSection, ChannelAlarmSection, IncidentsSection, check_alarms
from dxad.consumersection import ConsumerSection
from dxad.errors import ConfigError, Problem
from dxad.expression import compile_expression
from dxad.fields import (
    ChannelPattern,
    Duration,
    Identifier,
    ModelSection,
    Section,
    Size,
    SourceSection,
    TransformSection,
    matching,
)
from dxad.gatewaysection import GatewaySection
from dxad.outboxsection import OutboxSection
from dxad.runtime.logs import Level
from dxad.shape import Shape, ShapeError, shape_of
from dxad.sharing import mistaken
from dxad.sinksection import SinkSection
from dxad.telemetrysection import TelemetrySection
from dxad.tomlines import Key
from dxad.types import NS_PER_S, Channel, Schema

__all__ = [
    "AlarmSection",
    "ChannelAlarmSection",
    "Config",
    "ControlSection",
    "GatewaySection",
    "IncidentsSection",
    "LearnSection",
    "OutboxSection",
    "PipelineSection",
    "PromotionSection",
    "load",
    "parse",
    "schema",
    "shape",
    "warnings",
    "where",
]


_SOCKET_BYTES: Final = 107
"""Source: `man 7 unix`, sun_path and its end."""


class ControlSection(Section):
    """The control socket."""

    socket: Path = Field(Path("/run/dxad/control.sock"), strict=False, description="path of the Unix socket")
    group: str | None = Field(None, description="the group that may read; default: the daemon's own")
    admin_group: str = Field("dxad-admin", description="the group that may change things")

    @field_validator("socket")
    @classmethod
    def _fits(cls, path: Path) -> Path:
        if len(os.fsencode(path)) > _SOCKET_BYTES:
            raise ValueError(f"{path}: a socket's path has {_SOCKET_BYTES} bytes at most")
        return path


class LearnSection(Section):
    """Learning what is normal, from the pipeline's own rows."""

    span: Duration = Field(
        3600 * NS_PER_S, gt=0, description="how much of the plant's normal running to learn from"
    )
    window_rows: int = Field(
        10, ge=1, le=64, description="rows per window at most; fewer where data is short"
    )
    start: Literal["if_missing", "on_demand"] = Field(
        "if_missing", description="learn by itself while there is no model, or only when asked to"
    )


class PromotionSection(Section):
    """When a new model takes over, and when it must give way again."""

    automatic: bool = Field(False, description="promote a shadow that has earned it, without being told to")
    after: Duration = Field(
        3600 * NS_PER_S, gt=0, description="how long a shadow scores beside the live model before it may"
    )
    agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        0.99, strict=False, description="the share of rows on which both must say the same"
    )
    probation: Duration = Field(
        600 * NS_PER_S, gt=0, description="how long the replaced model scores on beside, ready to take over"
    )
    shift: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, strict=False, description="roll back a model that alarms in more of the rows in which the old "
        "one does not",
    )  # fmt: skip


class PipelineSection(Section):
    """One thing that is watched."""

    channels: tuple[ChannelPattern, ...] = Field(strict=False, min_length=1, description="what it looks at")
    for_each: Annotated[tuple[str, ...], Field(strict=False)] | str | None = Field(
        None, description="machines that are equal: a pipeline for each, with {each} replaced"
    )
    period: Duration | None = Field(None, description="the step of its rows; default: its slowest source's")
    window: Duration | None = Field(None, description="what a model sees at once; default: one row")
    hop: int = Field(1, ge=1, description="rows from one window to the next")
    backlog: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="how many rows may wait to be scored; default: all that the rings hold"
    )
    overflow: Literal["drop_oldest", "drop_newest", "thin"] = Field(
        "drop_oldest", description="which rows are passed over, and counted, when more than the backlog wait"
    )
    required: tuple[ChannelPattern, ...] = Field(
        (), strict=False, description="a window in which one of these is bad throughout is not scored"
    )
    when: str | None = Field(
        None, description="an expression over its channels: rows in which it does not hold are neither "
        "learned nor scored",
    )  # fmt: skip
    settle: Annotated[Duration, Field(ge=0)] = Field(
        0, description="how long `when` must have held before rows count"
    )
    by: ChannelPattern | None = Field(
        None, description="the channel whose value tells the regime: what is normal is kept apart for each"
    )
    features: tuple[Annotated[TransformSection, plugin.section("transforms", TransformSection)], ...] = Field(
        (), strict=False, description="transforms of one source's rows at their own rate, before the join"
    )
    transforms: tuple[Annotated[TransformSection, plugin.section("transforms", TransformSection)], ...] = (
        Field((), strict=False, description="transforms of the joined rows, in this order")
    )
    model: Annotated[ModelSection, plugin.section("models", ModelSection)] | None = Field(
        None, description="what scores the rows; a pipeline with alarms of its own may do without"
    )
    learn: LearnSection | None = Field(None, description="without it, nothing is learned")
    alarm: AlarmSection = Field(AlarmSection(), description="when a score becomes an alarm")
    alarms: tuple[ChannelAlarmSection, ...] = Field(
        (), strict=False, description="limits of single channels, beside the score"
    )
    deadline: Annotated[Duration, Field(gt=0)] = Field(
        NS_PER_S, description="how long the model may take for a batch of rows; a longer one is told"
    )
    promotion: PromotionSection = Field(PromotionSection(), description="when a new model takes over")


class Config(Section):
    """Everything dxad is told; see `config/dxad.toml` for each key with its default."""

    gateway: GatewaySection = Field(GatewaySection(), description="who this gateway is")
    state_dir: Path = Field(
        Path("/var/lib/dxad"), strict=False, description="where dxad keeps what must last"
    )
    profile: Literal["low_latency", "balanced", "sd_card"] = Field(
        "balanced", description="latency against processor time and flash wear"
    )
    memory_max: Size = Field(128 * 2**20, description="refuse a configuration whose rings need more")
    log: Level = Field("info", description="what is logged: this and what is worse")
    control: ControlSection = Field(ControlSection(), description="the control socket")
    outbox: OutboxSection = Field(OutboxSection(), description="store and forward")
    consumers: dict[Identifier, ConsumerSection] = Field({}, max_length=16, description="pull consumers")
    incidents: IncidentsSection = Field(
        IncidentsSection(), description="what is said of the incidents of all pipelines"
    )
    sources: dict[Identifier, Annotated[SourceSection, plugin.section("sources", SourceSection)]] = Field(
        min_length=1, description="what is read, by name"
    )
    pipelines: dict[Identifier, PipelineSection] = Field({}, description="what is watched, by name")
    sinks: dict[Identifier, Annotated[SinkSection, plugin.section("sinks", SinkSection)]] = Field(
        {}, description="where events go, by name"
    )
    telemetry: dict[Identifier, TelemetrySection] = Field(
        {}, description="readings that leave in bulk, by name"
    )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All channels of all sources."""
        return tuple(chain.from_iterable(each.declared(name) for name, each in self.sources.items()))


RING_BYTES_MAX = 64 * 2**20
"""No source's ring is larger, however long its `keep`."""


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and its `conf.d`.

    Args:
        path: the file.
        overrides: `dotted.key=value` as on a command line; they go before what the files say.

    Raises:
        ConfigError: with every mistake, each with file, line and key.
    """
    document, lines = tomlfiles.read(path, overrides)
    state_dir = os.environ.get("STATE_DIRECTORY")  # systemd's StateDirectory=
    if state_dir and "state_dir" not in document:
        document["state_dir"] = state_dir
    beside = tomlfiles.FOLDER.set(path.parent)
    try:
        config = parse(document, lines, str(path))
    finally:
        tomlfiles.FOLDER.reset(beside)
    misplaced = [
        Problem(_where(key, lines, str(path)), ".".join(key), f"a {kind} of this type is for use from Python")
        for key, kind in _in_process(config)
    ]
    if misplaced:
        raise ConfigError(problems=misplaced)
    return config.model_copy(update={"state_dir": path.parent / config.state_dir})


def where(path: Path, key: str) -> str:
    """The `file:line` of a dotted key in a configuration file or its `conf.d`, or of the nearest table.

    Raises:
        ConfigError: a file cannot be read.
    """
    document, lines = tomlfiles.read(path)
    lines = template.expand(document, lines, _channel_ids(document)).lines
    return _where(tuple(key.split(".")), lines, str(path))


def parse(document: dict[str, Any], lines: Mapping[Key, str] | None = None, file: str = "config") -> Config:
    """Check a document that was read from TOML or built in code.

    Raises:
        ConfigError: with every mistake, in the order of the lines.
    """
    expansion = template.expand(document, lines or {}, _channel_ids(document))
    document, lines, mistakes = expansion.document, expansion.lines, expansion.mistakes
    config: Config | None = None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        mistakes += [(each["loc"], each["msg"]) for each in error.errors(include_url=False)]
    mistakes += [each for each in _cross_check(document) if each not in mistakes]
    if mistakes or config is None:
        problems = [
            Problem(_where(key, lines, file), ".".join(map(str, key)), text) for key, text in mistakes
        ]
        raise ConfigError(problems=sorted(problems, key=_place))
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration, for editors."""
    found = Config.model_json_schema(mode="validation", schema_generator=_AsWritten)
    return {"$schema": _AsWritten.schema_dialect, **found}


class _AsWritten(GenerateJsonSchema):
    """Shows the default of a duration or a size as the string that one would write."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        shown = super().default_schema(schema)
        if shown.get("type") == "string" and isinstance(shown.get("default"), int):
            written = SchemaSerializer(schema["schema"]).to_python(schema["default"], mode="json")
            shown["default"] = written
        return shown


def _in_process(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, source in config.sources.items():
        if source.in_process:
            yield ("sources", name, "type"), "source"
    for name, sink in config.sinks.items():
        if sink.in_process:
            yield ("sinks", name, "type"), "sink"


def _where(key: Key, lines: Mapping[Key, str], file: str) -> str:
    """The line of the key, or of the nearest table around it: a missing key has none of its own."""
    return next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), file)


def _place(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdigit() else (problem.where, 0)


def _valid(kind: Any, value: Any) -> Any:
    """The section, if it is sound by itself; its mistakes are told by the validation of the whole."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _tables(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _channel_ids(document: Mapping[str, Any]) -> Iterator[str]:
    """Of all sources that are sound by themselves."""
    for name, raw in _tables(document, "sources").items():
        found = _valid(Config.model_fields["sources"].annotation, {name: raw})
        if found is not None:
            yield from (channel.id for channel in found[name].declared(name))


def _cross_check(document: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """What no section can know by itself; sections that are broken are passed over."""
    kind = Config.model_fields["sources"].annotation
    sources: dict[str, SourceSection] = {}
    open_sources: set[str] = set()
    for name, raw in _tables(document, "sources").items():
        found = _valid(kind, {name: raw})
        if found is None:
            open_sources.add(name)
        else:
            sources.update(found)
    channels = tuple(chain.from_iterable(each.declared(name) for name, each in sources.items()))
    for name, source in sources.items():
        if source.period is None:
            open_sources.add(name)
            yield ("sources", name, "period"), 'is missing; the step of its grid, for example "100ms"'
        if not source.channel_sections():
            yield ("sources", name, "channels"), "is missing; a source needs at least one channel"
    yield from _alone(sources)
    gateway = str(_tables(document, "gateway").get("id", GatewaySection().id))
    sinks, state_dir = _sound_sinks(document), Path(str(document.get("state_dir", "")))
    yield from topics.mistaken(sources, sinks, gateway)
    yield from writing.mistaken(sinks, state_dir=state_dir, outbox=_tables(document, "outbox").get("path"))
    yield from _check_telemetry(document, channels, sources, open_sources)
    pipelines = _tables(document, "pipelines").items()
    for name, raw in pipelines:
        if isinstance(raw, dict):
            yield from _check_pipeline(("pipelines", name), raw, channels, sources, open_sources)
    sound = ((name, each) for name, raw in pipelines if (each := _valid(PipelineSection, raw)) is not None)
    for name, key, text in mistaken({name: (each.model, each.learn is not None) for name, each in sound}):
        yield ("pipelines", name, "model", *key), text


def _check_telemetry(
    document: Mapping[str, Any],
    channels: tuple[Channel, ...],
    sources: Mapping[str, SourceSection],
    open_sources: set[str],
) -> Iterator[tuple[Key, str]]:
    sections = _tables(document, "telemetry")
    for name, raw in sections.items():
        if isinstance(raw, dict):
            yield from _check_patterns(("telemetry", name), raw, channels, open_sources)
    sound = {name: _valid(TelemetrySection, raw) for name, raw in sections.items()}
    yield from telemetrysection.mistaken(sound, sources, _tables(document, "pipelines"))


def _sound_sinks(document: Mapping[str, Any]) -> dict[str, SinkSection]:
    kind = Config.model_fields["sinks"].annotation
    each = ({name: raw} for name, raw in _tables(document, "sinks").items())
    return {name: sink for found in each for name, sink in (_valid(kind, found) or {}).items()}


def _alone(sources: Mapping[str, SourceSection]) -> Iterator[tuple[Key, str]]:
    users: dict[str, str] = {}
    for name, source in sources.items():
        place = source.alone_on
        if place is not None and (first := users.setdefault(place, name)) != name:
            yield (
                ("sources", name),
                f"{place} is sources.{first}'s already; one source has all that comes there",
            )


def _check_pipeline(
    at: Key,
    raw: Mapping[str, Any],
    channels: tuple[Channel, ...],
    sources: Mapping[str, SourceSection],
    open_sources: set[str],
) -> Iterator[tuple[Key, str]]:
    yield from _check_patterns(at, raw, channels, open_sources)
    if "model" not in raw and not raw.get("alarms"):
        yield (*at, "model"), "is missing"
    elif "model" not in raw and "learn" in raw:
        yield (*at, "learn"), "there is no model that could learn"
    pipeline = _valid(PipelineSection, raw)
    if pipeline is None or _asks_for(pipeline.channels, open_sources):
        return
    known = tuple(each for each in pipeline.channels if matching([each], channels))
    for key, text in _check_shape(at, pipeline.model_copy(update={"channels": known}), sources):
        # What matches nothing may do so because a pattern is mistyped, which was told already.
        if known == pipeline.channels or key[-1] != "channels":
            yield key, text


def _check_patterns(
    at: Key, raw: Mapping[str, Any], channels: tuple[Channel, ...], open_sources: set[str]
) -> Iterator[tuple[Key, str]]:
    patterns = raw.get("channels")
    for place, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
        if not isinstance(pattern, str) or "." not in pattern or matching([pattern], channels):
            continue
        if _asks_for([pattern], open_sources):
            continue
        yield (*at, "channels", place), _no_channel(pattern, channels)


def _no_channel(pattern: str, channels: Sequence[Channel]) -> str:
    close = difflib.get_close_matches(pattern, [each.id for each in channels], 1)
    return f"no channel {pattern!r}" + (f", did you mean {close[0]!r}?" if close else "")


def _asks_for(patterns: Iterable[str], sources: set[str]) -> bool:
    """Whether a pattern may mean a channel of one of these sources."""
    return any(fnmatch.filter(sources, pattern.partition(".")[0]) for pattern in patterns)


def _check_shape(
    at: Key, pipeline: PipelineSection, sources: Mapping[str, SourceSection]
) -> Iterator[tuple[Key, str]]:
    try:
        found = shape(pipeline, sources)
    except ShapeError as error:
        yield (*at, *error.key), str(error)
        return
    period = found.joined.period
    for place, pattern in enumerate(pipeline.required):
        if not matching([pattern], found.outputs.channels):
            yield (*at, "required", place), _no_channel(pattern, found.outputs.channels)
    yield from check_alarms(at, pipeline.alarm, pipeline.alarms, found.outputs.channels)
    yield from _check_expression((*at, "when"), pipeline.when, found.joined.channels)
    if pipeline.by is not None and len(matching([pipeline.by], found.outputs.channels)) != 1:
        yield (*at, "by"), _no_channel(pipeline.by, found.outputs.channels)
    if pipeline.window is not None and (pipeline.window < period or pipeline.window % period):
        yield (
            (*at, "window"),
            f"{pipeline.window / 1e6:g} ms is no multiple of the pipeline's period, {period / 1e6:g} ms",
        )


def warnings(config: Config) -> list[Problem]:
    """What is right but hardly meant: each with the key to look at."""
    found = []
    for name, pipeline in config.pipelines.items():
        thinned = shape(pipeline, config.sources).thinned
        if thinned:
            channel, slots = thinned[0]
            others = f" and {len(thinned) - 1} more" if len(thinned) > 1 else ""
            text = (
                f"a row keeps the last of {slots} values of {channel.id!r}{others}; "
                'give the channel a fold such as "mean", or summarize it in a feature'
            )
            found.append(Problem("warning", f"pipelines.{name}.period", text))
    if config.telemetry and not any("bulk" in each.lanes for each in config.sinks.values()):
        text = 'nobody gets it but pull consumers: no sink has "bulk" in its lanes'
        found.append(Problem("warning", "telemetry", text))
    return found


def _check_expression(at: Key, text: str | None, channels: Sequence[Channel]) -> Iterator[tuple[Key, str]]:
    """What is wrong with an expression over these channels."""
    if text is None:
        return
    try:
        found = compile_expression(text)
    except ConfigError as error:
        yield at, str(error)
        return
    known = {channel.id for channel in channels}
    for name in found.names:
        if name not in known:
            yield at, _no_channel(name, channels)


def shape(pipeline: PipelineSection, sources: Mapping[str, SourceSection]) -> Shape:
    """What the rows of a pipeline over these sources look like; a source without a period counts messages.

    Raises:
        ShapeError: something does not fit.
    """
    return shape_of(
        patterns=pipeline.channels,
        features=pipeline.features,
        transforms=pipeline.transforms,
        period=pipeline.period,
        sources={name: Schema(each.declared(name), each.period or 1) for name, each in sources.items()},
    )
