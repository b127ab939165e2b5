"""A bundle of somebody else's `.tflite`: what its numbers mean is said, the rest is taken from normal rows.

`python -m dxad.training.wrap` does it in a process of its own, with a job as JSON on stdin, since the file
may crash the runtime; it prints JSON.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from dxad import bundle
from dxad.bundle.inference import Scorer
from dxad.bundle.manifest import ForecastRule, InputSpec, Layout, Manifest, ReconstructionRule, Rule
from dxad.errors import ModelError
from dxad.training.calibrate import SPANS, limit, scales
from dxad.training.linear import windows_of
from dxad.types import F4, F8, Channel, Document

__all__ = ["Wish", "answer", "wrap"]

_GOLDEN: Final = 8
_OFF: Final = 5.0
"""Standard deviations by which half of the golden windows are off."""
_TOLERANCE: Final = {True: 1e-4, False: 1e-2}
"""By whether all numbers are floats: another processor may round an integer to its neighbour."""
_WINDOWS_MIN: Final = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What is said of the model."""

    channels: tuple[Channel, ...]
    rows: int
    period: int
    """Nanoseconds per row."""
    rule: Rule
    layout: Layout = "flat"
    normalise: bool = False
    """Whether cells are to be standardised by the data before they go into the graph."""
    limit: float | None = None
    """The score above which a row is anomalous; None: calibrate it on the data."""


def wrap(blob: bytes, wish: Wish, data: F8 | None, folder: Path, *, key: Path | None = None) -> bundle.Bundle:
    """Make a bundle in `folder`, with the golden scores that the model has now.

    Args:
        blob: the model.
        wish: what is said of it.
        data: (n, channels) consecutive rows of normal running; NaN where a cell is bad.
        folder: does not exist yet.
        key: a private key to sign with, as a PEM file.

    Raises:
        ModelError: the graph is not what was said, or there is too little to calibrate with.
    """
    manifest = _described(wish, data)
    scorer = Scorer(manifest, blob)
    if data is not None:
        manifest = manifest.model_copy(update=_calibrated(scorer, wish, manifest, data))
    floats = scorer.graph.input.is_float and all(each.is_float for each in scorer.graph.outputs)
    golden = _golden(wish, data)
    scores, parts = scorer.score(golden.reshape(-1, len(wish.channels)), _GOLDEN, step=wish.rows, holed=False)
    if not np.isfinite(scores).all():
        raise ModelError("the model answers with numbers that are not finite")
    told = {
        "golden_windows": tuple(tuple(each) for each in golden.reshape(_GOLDEN, -1).tolist()),
        "golden_scores": tuple(scores.tolist()),
        "golden_contributions": () if parts is None else tuple(tuple(each) for each in parts.tolist()),
        "golden_tolerance": _TOLERANCE[floats],
    }
    return bundle.write(folder, manifest.model_copy(update=told), blob, key=key)


def _described(wish: Wish, data: F8 | None) -> Manifest:
    """All but the calibration."""
    width = len(wish.channels)
    if data is None and (wish.limit is None or wish.normalise):
        raise ModelError("without rows of normal running, say above which score a row is anomalous (--limit)")
    mean, std, fill = np.zeros(width), np.ones(width), np.zeros(width)
    if data is not None:
        if np.isnan(data).all(axis=0).any():
            place = int(np.isnan(data).all(axis=0).argmax())
            raise ModelError(f"the data has no value of {wish.channels[place].id}")
        mean, std, fill = np.nanmean(data, axis=0), np.nanstd(data, axis=0), np.nanmedian(data, axis=0)
    spread = np.where(std > 0, std, 1.0)
    rule = wish.rule
    if isinstance(rule, ReconstructionRule | ForecastRule) and not wish.normalise and not rule.spread:
        rule = rule.model_copy(update={"spread": tuple(spread.tolist())})
    spec = InputSpec(layout=wish.layout)
    if wish.normalise:
        spec = InputSpec(layout=wish.layout, mean=tuple(mean.tolist()), std=tuple(spread.tolist()))
    ids = [each.id for each in wish.channels]
    return Manifest(
        channels=tuple(ids),
        units=tuple(each.unit for each in wish.channels),
        rows=wish.rows,
        period=wish.period,
        fill=tuple(fill.tolist()),
        input=spec,
        score=rule,
        limit=wish.limit or 1.0,
        spans=(1,),
        scales=(1.0,),
        normal={}
        if data is None
        else dict(zip(ids, zip(mean.tolist(), std.tolist(), strict=True), strict=True)),
    )


def _calibrated(scorer: Scorer, wish: Wish, manifest: Manifest, data: F8) -> dict[str, object]:
    """What the scores of normal rows say: scales, limit, what each channel usually adds."""
    n = len(data) - wish.rows + 1
    if n < _WINDOWS_MIN:
        raise ModelError(
            f"{len(data)} rows are too few; calibrating takes at least {_WINDOWS_MIN + wish.rows - 1}"
        )
    scores, parts = scorer.score(data.astype(np.float32), n)
    known = np.isfinite(scores)
    if np.count_nonzero(known) < _WINDOWS_MIN:
        raise ModelError(f"of {n} windows of the data only {np.count_nonzero(known)} have a score")
    usual = (
        {} if parts is None else dict(zip(manifest.channels, parts[known].mean(axis=0).tolist(), strict=True))
    )
    found: dict[str, object] = {"usual": usual, "calibrated_rows": n}
    if wish.limit is None:
        found |= {"limit": limit(n), "spans": SPANS, "scales": scales(scores[known])}
    return found


def _golden(wish: Wish, data: F8 | None) -> F4:
    """Windows of the data, or of noise, and copies of them that are far off."""
    whole = None if data is None else windows_of(data, wish.rows)
    if whole is not None:
        whole = whole[~np.isnan(whole).any(axis=(1, 2))]
    if whole is None or not len(whole):
        picked = np.random.default_rng(0).normal(size=(_GOLDEN, wish.rows, len(wish.channels)))
        off = np.ones(len(wish.channels))
    else:
        picked = whole[np.linspace(0, len(whole) - 1, _GOLDEN).astype(int)].copy()
        off = whole.std(axis=(0, 1))
    picked[_GOLDEN // 2 :] += _OFF * off
    golden: F4 = picked.astype(np.float32)
    return golden


def answer(job: Document) -> Document:
    """Do a job: `model`, `folder`, `data`, `key` as paths, and `wish`; gives `version` or `error`."""
    try:
        wish = TypeAdapter(Wish).validate_python(job["wish"])
        data = None if job["data"] is None else np.load(job["data"], allow_pickle=False)
        key = None if job["key"] is None else Path(job["key"])
        made = wrap(bundle.read_bare(Path(job["model"])), wish, data, Path(job["folder"]), key=key)
    except ValidationError as error:
        return {"error": error.errors()[0]["msg"].removeprefix("Value error, ")}
    except ModelError as error:
        return {"error": str(error)}
    return {"version": made.version}


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(answer(orjson.loads(sys.stdin.buffer.read()))))
