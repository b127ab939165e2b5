"""`dxad models`: bundles of models: make one, look at them, try them, let one take over."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dxad.cli.options import MISTAKE, REFUSED, as_json, tell
from dxad.cli.succession import beside, dismiss, install, promote, rollback, shadow
from dxad.cli.wrap import wrap

if TYPE_CHECKING:
    from dxad.bundle import Bundle
    from dxad.bundle.shelf import Version

__all__ = ["models"]

_PATH = click.Path(path_type=Path)


@click.group(epilog="Example: dxad models verify models/pump")
def models() -> None:
    """Make, list, show and try bundles of models, and say which of them counts.

    A bundle is a folder with a TensorFlow Lite file and a manifest that says what its numbers mean. A shelf
    is a folder of bundles, one of which is current: what `path` of a tflite model names.
    """


models.add_command(wrap)
for _command in (beside, install, shadow, promote, rollback, dismiss):
    models.add_command(_command)


@models.command("list", epilog="Example: dxad models list -c /etc/dxad/dxad.toml")
@click.option("--shelf", type=_PATH, help="The versions of this shelf alone.")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path, dir_okay=False), help="Those of all pipelines."
)
@as_json
def list_models(shelf: Path | None, config: Path | None, as_json: bool) -> None:
    """List the versions on a shelf, or on all of a configuration: which is in use, how it came, and when."""
    from dxad.errors import ConfigError

    if (shelf is None) == (config is None):
        raise click.UsageError("say --shelf DIR or --config FILE")
    try:
        places = {str(shelf): shelf} if shelf is not None else _of_config(config)
    except ConfigError as error:
        tell(error)
        sys.exit(MISTAKE)
    found = {name: _versions(path) for name, path in places.items()}
    if as_json:
        import orjson

        document = {name: [_row(each) for each in versions] for name, versions in found.items()}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        _print_list(found)


def _of_config(path: Path | None) -> dict[str, Path]:
    from dxad.config import load

    assert path is not None
    config = load(path)
    return {
        name if number == 0 else f"{name}.{number}": config.state_dir / path
        for name, each in config.pipelines.items()
        for number, path in enumerate(each.model.bundles() if each.model else ())
    }


def _versions(path: Path) -> "list[Version]":
    """A bundle that is on no shelf counts as the only version of one."""
    from dxad.bundle import shelf

    if (path / "manifest.json").exists():
        return [shelf.Version(path, current=True, installed=None, why=None, activated=None, reason=None)]
    return shelf.versions(path)


def _row(version: "Version") -> dict[str, object]:
    from dxad import bundle
    from dxad.bundle.interpreter import place
    from dxad.errors import ModelError

    row: dict[str, object] = {
        "version": version.name,
        "current": version.current,
        "installed": version.installed,
        "why": version.why,
        "activated": version.activated,
        "reason": version.reason,
        "tried": False,
        "problem": None,
    }
    try:
        found = bundle.read(version.folder)
    except ModelError as error:
        return row | {"problem": str(error)}
    return row | {"tried": bundle.is_tried(version.folder, found.contents, place())}


def _print_list(found: "dict[str, list[Version]]") -> None:
    from rich.console import Console

    from dxad.cli.cells import table, text

    shown = table("WHOSE", "VERSION", "IN USE", "CAME", "", "SINCE", "", "STATE")
    for name, versions in found.items():
        if not versions:
            shown.add_row(text(name), "none", "", "", "", "", "", "")
        for each in reversed(versions):
            row = _row(each)
            state = "tried" if row["tried"] else "not tried here"
            cells = (each.name, "yes" if each.current else "", each.installed, each.why, each.activated)
            since = each.reason if each.activated else ""
            state = str(row["problem"] or state)
            shown.add_row(text(name), *(text(str(cell or "")) for cell in (*cells, since, state)))
    Console().print(shown)


@models.command(epilog="Example: dxad models show models/pump")
@click.argument("path", type=_PATH)
@as_json
def show(path: Path, as_json: bool) -> None:
    """Show what the bundle at PATH, or the current one of the shelf there, says of itself."""
    found = _read(path)
    if as_json:
        click.echo(found.manifest.model_dump_json(indent=2))
        return
    manifest = found.manifest
    lines = {
        "version": found.version,
        "window": f"{manifest.rows} rows of {manifest.period / 1e9:g} s, {manifest.input.layout}",
        "score": manifest.score.rule,
        "limit": f"{manifest.limit:.4g}, of means over {', '.join(map(str, manifest.spans))} rows",
        "trained": f"on {manifest.trained_rows:,} rows, calibrated on {manifest.calibrated_rows:,}",
        "trained from": " to ".join(manifest.trained_utc or ()) or "unknown",
        "regimes": f"by {manifest.by}: {', '.join(f'{each.value:g}' for each in manifest.regimes)}"
        if manifest.regimes
        else "one",
        "golden": f"{len(manifest.golden_windows)} windows",
        "signed": f"by {manifest.signature.key}" if manifest.signature else "no",
    }
    for name, value in lines.items():
        click.echo(f"{name:<13} {value}")
    for name, unit, fill in zip(manifest.channels, manifest.units, manifest.fill, strict=True):
        mean, std = manifest.normal.get(name, (float("nan"), float("nan")))
        click.echo(f"{'channel':<13} {name} [{unit}]: {mean:.4g} ± {std:.2g}, {fill:.4g} where missing")
    for name, why in manifest.left_out.items():
        click.echo(f"{'left out':<13} {name}: {why}")


def _read(path: Path) -> "Bundle":
    from dxad import bundle
    from dxad.errors import ModelError

    try:
        return bundle.read(bundle.current(path) or path)
    except ModelError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(REFUSED)


@models.command(epilog="Example: dxad models verify models/pump")
@click.argument("paths", metavar="PATH...", type=_PATH, nargs=-1, required=True)
@as_json
def verify(paths: tuple[Path, ...], as_json: bool) -> None:
    """Try the bundles at PATH, or the current ones of the shelves there, in a process of its own.

    Exit status 0 if all passed, 1 if one is refused.
    """
    from dxad.bundle import current
    from dxad.bundle.trial import try_bundles_now

    trials = try_bundles_now([current(path) or path for path in paths])
    if as_json:
        import orjson

        document = [
            {
                "path": str(each.path),
                "refused": each.refused,
                "version": each.version,
                "latency_us": each.latency_us,
            }
            for each in trials
        ]
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    for each in () if as_json else trials:
        if each.refused is not None:
            click.echo(f"refused: {each.refused}")
            continue
        times = ", ".join(f"{us:.2g} µs by {batch}" for batch, us in each.latency_us.items())
        click.echo(
            f"passed: {each.path}: {each.version}, {each.rule}, {each.runtime}; a window takes {times}"
        )
    sys.exit(0 if all(each.ok for each in trials) else REFUSED)
