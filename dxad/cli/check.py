"""`dxad check`: is this configuration right, and what memory will it take."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dxad.cli.options import MISTAKE, as_json, of_config
from dxad.errors import ConfigError, Problem
from dxad.octets import octets_written

if TYPE_CHECKING:
    from dxad.config import Config

__all__ = ["check"]


def _print_schema(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    import orjson

    from dxad.config import schema

    click.echo(orjson.dumps(schema(), option=orjson.OPT_INDENT_2))
    context.exit()


@click.command(epilog="Example: dxad check -c /etc/dxad/dxad.toml && systemctl reload dxad")
@of_config
@as_json
@click.option(
    "--schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema,
    help="Print the JSON Schema of all configurations instead, for editors.",
)  # fmt: skip
def check(config: Path, as_json: bool) -> None:
    """Find every mistake in a configuration.

    Each is one line, `file:line: key: message`, and the exit status is 2. A right one is told with the memory
    that each of its nodes will need, and with all that instruments are asked: nothing else is ever sent to
    the field. Nothing is connected to.
    """
    from dxad.assembly import memory
    from dxad.config import load, warnings

    loaded, needed = None, {}
    warned: Sequence[Problem] = ()
    try:
        loaded = load(config)
    except ConfigError as error:
        problems = error.problems
    else:
        needed = memory(loaded)
        problems = _too_large(config, loaded, needed)
        warned = warnings(loaded)
    if as_json:
        _print_json(problems, warned, loaded, needed)
    else:
        _print(config, problems, warned, loaded, needed)
    sys.exit(MISTAKE if problems else 0)


def _too_large(path: Path, config: "Config", needed: Mapping[str, int]) -> tuple[Problem, ...]:
    total = sum(needed.values())
    if total <= config.memory_max:
        return ()
    largest = max(needed, key=lambda name: needed[name])
    message = (
        f"allows {_mib(config.memory_max)}, the buffers need {_mib(total)}; "
        f"the largest is {largest} with {_mib(needed[largest])}"
    )
    return (Problem(str(path), "memory_max", message),)


def _print_json(
    problems: Sequence[Problem],
    warned: Sequence[Problem],
    config: "Config | None",
    needed: Mapping[str, int],
) -> None:
    import orjson

    document = {
        "valid": not problems,
        "problems": [{"where": each.where, "key": each.key, "message": each.message} for each in problems],
        "warnings": [{"key": each.key, "message": each.message} for each in warned],
        "requests": {} if config is None else {name: list(asked) for name, asked in _asked(config).items()},
        "memory_bytes": dict(needed),
        "memory_total_bytes": sum(needed.values()),
        "memory_max_bytes": None if config is None else config.memory_max,
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _print(
    path: Path,
    problems: Sequence[Problem],
    warned: Sequence[Problem],
    config: "Config | None",
    needed: Mapping[str, int],
) -> None:
    from dxad.cli.cells import count

    if config is not None:
        _print_memory(config, needed)
        for name, requests in _asked(config).items():
            click.echo(f"sources.{name} asks its device: {', '.join(map(repr, requests))}")
    for problem in (*warned, *problems):
        click.echo(str(problem))
    if config is None or problems:
        click.echo(count(len(problems), "mistake"))
    else:
        parts = (count(len(config.sources), "source"), count(len(config.pipelines), "pipeline"))
        click.echo(f"{path} is right: {', '.join(parts)}, {count(len(config.sinks), 'sink')}")


def _asked(config: "Config") -> Mapping[str, Sequence[str]]:
    """By source, what it sends to its device, as a configuration writes it."""
    return {
        name: [octets_written(each) for each in section.requests]
        for name, section in config.sources.items()
        if section.requests
    }


def _print_memory(config: "Config", needed: Mapping[str, int]) -> None:
    from rich.console import Console

    from dxad.cli.cells import table, text

    nodes = table("NODE", ">MEMORY", "")
    for name, size in needed.items():
        nodes.add_row(text(name), _mib(size))
    nodes.add_row("total", _mib(sum(needed.values())), f"of {_mib(config.memory_max)}", style="bold")
    Console().print(nodes)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
