"""`dxad models wrap`: make a bundle of a bare `.tflite`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dxad.cli.options import MISTAKE, REFUSED

if TYPE_CHECKING:
    from dxad.types import F8

__all__ = ["wrap"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)
_TIMEOUT_S: Final = 300.0


@click.command(
    epilog="Example: dxad models wrap net.tflite --channels plc.flow:l/min,plc.pressure:bar --rows 10 "
    "--period 100ms --score reconstruction --data normal.csv --out models/pump"
)
@click.argument("file", type=_FILE)
@click.option("--channels", required=True, metavar="ID[:UNIT],…", help="The columns of a window, in order.")
@click.option("--rows", required=True, type=click.IntRange(1), help="Rows of a window.")
@click.option("--period", required=True, metavar="DURATION", help="Time of a row, such as 100ms.")
@click.option(
    "--score", required=True, type=click.Choice(["output", "reconstruction", "forecast", "probability"]),
    help="What comes out: the score, the input again, the last rows, or class probabilities.",
)  # fmt: skip
@click.option("--output", default="", help="The name of that output, where there are several.")
@click.option(
    "--contribution", default="", help="An output with a number per channel: its part of the score."
)
@click.option("--horizon", default=1, type=click.IntRange(1), help="How many rows a forecast is of.")
@click.option("--normal", type=click.IntRange(0), help="The class of normal running.")
@click.option("--anomalous", metavar="CLASS,…", help="Or the classes that are not.")
@click.option(
    "--layout", default="flat", type=click.Choice(["flat", "rows_channels", "channels_rows"]),
    help="How a window lies in the input.  [default: flat, row by row]",
)  # fmt: skip
@click.option("--normalise", is_flag=True, help="Standardise cells by the data first: the graph does not.")
@click.option("--data", type=_FILE, help="Rows of normal running, one per period: .csv, .npz or .jsonl.")
@click.option("--limit", type=click.FloatRange(0, min_open=True), help="The anomalous score, if known.")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle.  [default: FILE without .tflite]")
@click.option("--sign", type=_FILE, metavar="KEY.pem", help="Sign it with this ed25519 private key.")
def wrap(file: Path, **said: Any) -> None:
    """Make a bundle of FILE, a TensorFlow Lite model.

    What its numbers mean is said by options; what is normal is taken from the data. The model is loaded in a
    process of its own, and tried before this command ends.
    """
    from dxad.errors import ConfigError, ModelError

    out = said["out"] or file.with_suffix("")
    if out.exists():
        raise click.UsageError(f"{out} exists; say another --out")
    try:
        made = _wrapped(file, said, out)
    except ConfigError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(MISTAKE)
    except ModelError as error:
        click.echo(f"dxad: {file}: {error}", err=True)
        sys.exit(REFUSED)
    click.echo(made)


def _wrapped(file: Path, said: dict[str, Any], out: Path) -> str:
    """Make the bundle beside its place, try it, and only then give it its name.

    Raises:
        ConfigError: what was said makes no sense.
        ModelError: the model is not what was said, or does not pass its trial.
    """
    import tempfile

    import numpy as np

    from dxad.bundle.trial import try_bundles_now
    from dxad.errors import ModelError

    channels = _channels(said["channels"])
    wish = _wish(said, channels)
    ids = [each["id"] for each in channels]
    data = None if said["data"] is None else _rows(said["data"], ids, wish["period"])
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".wrap-") as desk:
        place = Path(desk)
        job = {
            "model": str(file),
            "folder": str(place / "bundle"),
            "key": None if said["sign"] is None else str(said["sign"]),
            "data": None if data is None else str(place / "rows.npy"),
            "wish": wish,
        }
        if data is not None:
            np.save(place / "rows.npy", data)
            click.echo(f"{len(data):,} rows of {len(channels)} channels from {said['data']}", err=True)
        answer = _answer(job)
        if "error" in answer:
            raise ModelError(answer["error"])
        trial = try_bundles_now([place / "bundle"])[0]
        if trial.refused is not None:
            raise ModelError(trial.refused.removeprefix(f"{place / 'bundle'}: "))
        (place / "bundle").rename(out)
    return f"{out}: version {trial.version}, tried on {trial.runtime}"


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    """Have the bundle made in a process of its own: the file may crash the runtime."""
    import os
    import signal
    import subprocess

    import orjson

    from dxad.errors import ModelError

    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dxad.training.wrap"], input=orjson.dumps(job), timeout=_TIMEOUT_S,
            capture_output=True, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"it takes longer than {_TIMEOUT_S:g} s") from error
    if done.returncode < 0:
        raise ModelError(
            f"the runtime crashed ({signal.Signals(-done.returncode).name}): the file is damaged"
        )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ModelError(f"the process that looked at it ended with status {done.returncode}: {last}")
    answer: dict[str, Any] = orjson.loads(done.stdout)
    return answer


def _channels(text: str) -> list[dict[str, str]]:
    found = []
    for each in text.split(","):
        name, _, unit = each.strip().partition(":")
        found.append({"id": name, "unit": unit})
    return found


def _wish(said: dict[str, Any], channels: list[dict[str, str]]) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    from dxad.errors import ConfigError
    from dxad.fields import Duration

    try:
        period = TypeAdapter(Duration).validate_python(said["period"])
        anomalous = [int(each) for each in (said["anomalous"] or "").split(",") if each]
    except (ValidationError, ValueError) as error:
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"--anomalous: {error}"
        raise ConfigError(text) from error
    rule: dict[str, Any] = {"rule": said["score"], "output": said["output"]}
    if said["score"] == "output" and said["contribution"]:
        rule |= {"contribution": said["contribution"], "contribution_columns": list(range(len(channels)))}
    if said["score"] == "forecast":
        rule["horizon"] = said["horizon"]
    if said["score"] == "probability":
        rule |= {"normal": said["normal"], "anomalous": anomalous}
    return {
        "channels": channels, "rows": said["rows"], "period": period, "rule": rule, "layout": said["layout"],
        "normalise": said["normalise"], "limit": said["limit"],
    }  # fmt: skip


def _rows(path: Path, names: list[str], period: int) -> "F8":
    """(n, channels) of a recording, one row per period; NaN where nothing came, or nothing to be believed.

    Raises:
        ConfigError: it is none, or lacks a channel.
    """
    import numpy as np

    from dxad.errors import ConfigError
    from dxad.recording import open_recording

    recording = open_recording(path, period=period)
    missing = [name for name in names if name not in recording.columns]
    if missing:
        raise ConfigError(f"{path}: has no column {', '.join(missing)}")
    rows: F8 = np.concatenate([np.empty((0, len(names))), *(each.values for each in recording.pieces(names))])
    return rows
