"""What a model's `manifest.json` says: what goes into the graph, and what its outputs mean.

Format 2. Format 1, which knew the linear detector only, is read and carried over.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import orjson
from pydantic import Field, model_validator
from pydantic_core import to_json

from dxad.fields import Section
from dxad.types import Calibration, Document

__all__ = [
    "ForecastRule",
    "InputSpec",
    "Layout",
    "Manifest",
    "OutputRule",
    "ProbabilityRule",
    "ReconstructionRule",
    "Regime",
    "Rule",
    "Signature",
    "canonical",
    "upgraded",
]

_FORMAT: Final = 2
_UNSIGNED: Final = frozenset({"checksum", "signature"})
_SPAN_MOST: Final = 100_000
"""Rows: so many scores are remembered, and gone through with every batch."""
_SPANS_MOST: Final = 16
_LARGEST: Final = 3.4e38
"""What single precision holds: cells and scores are in it."""
_SMALLEST: Final = 1e-30
"""A score over less than this could be no number any more."""

Span: TypeAlias = Annotated[int, Field(ge=1, le=_SPAN_MOST)]
Divisor: TypeAlias = Annotated[float, Field(ge=_SMALLEST, le=_LARGEST)]
Cell: TypeAlias = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Spread: TypeAlias = Annotated[float, Field(ge=0, le=_LARGEST)]

Layout = Literal["flat", "rows_channels", "channels_rows"]


class _Part(Section, strict=False, allow_inf_nan=False):
    """A part of the manifest: JSON, so tuples come as lists, and every number is finite."""


class InputSpec(_Part):
    """How a window is laid into the input tensor."""

    layout: Layout = Field(
        "flat", description="(rows·channels,) row by row; (rows, channels); or (channels, rows)"
    )
    mean: tuple[float, ...] = Field((), description="by channel, where cells are normalised before the graph")
    std: tuple[float, ...] = Field((), description="likewise; a cell becomes (x - mean) / std")


class _Rule(_Part):
    output: str = Field("", description="the output tensor; empty: the one called score, or the only one")


class OutputRule(_Rule):
    """An output is the score; another one may say which channel makes how much of it."""

    rule: Literal["output"] = "output"
    contribution: str = Field("", description="an output of (n, k) non-negative numbers, if there is one")
    contribution_columns: tuple[int, ...] = Field((), description="which channel each of those k is of")


class _ErrorRule(_Rule):
    spread: tuple[float, ...] = Field(
        (), description="by channel, in what the graph sees: what an error is over"
    )


class ReconstructionRule(_ErrorRule):
    """The graph gives back what it was given: the score is the mean square of the error over the spread."""

    rule: Literal["reconstruction"] = "reconstruction"


class ForecastRule(_ErrorRule):
    """The graph sees all rows but the last few and predicts these: the same of the error of the forecast."""

    rule: Literal["forecast"] = "forecast"
    horizon: int = Field(1, ge=1, description="how many rows it predicts")


class ProbabilityRule(_Rule):
    """The graph gives class probabilities: 1 - p(normal), or the sum of the anomalous classes."""

    rule: Literal["probability"] = "probability"
    normal: int | None = Field(None, ge=0, description="the class of normal running")
    anomalous: tuple[int, ...] = Field((), description="or those that are not")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.normal is None) == (not self.anomalous) or any(each < 0 for each in self.anomalous):
            raise ValueError("say which class is normal, or which are anomalous")
        return self


Rule: TypeAlias = Annotated[
    OutputRule | ReconstructionRule | ForecastRule | ProbabilityRule, Field(discriminator="rule")
]


class Regime(_Part):
    """What is normal while the pipeline's `by` channel has one value."""

    value: float
    rows: int = Field(ge=1, description="how many of them it was learned from")
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Signature(_Part):
    """Who vouches for a bundle: ed25519 (RFC 8032) over its canonical bytes, which hold the model's hash."""

    algorithm: Literal["ed25519"] = "ed25519"
    key: str = Field(description="the public key, 32 bytes in hex; only one that is configured is trusted")
    value: str = Field(description="the signature, 64 bytes in hex")


class Manifest(_Part):
    """What `manifest.json` says."""

    format: int = Field(_FORMAT, ge=_FORMAT, le=_FORMAT)
    channels: tuple[str, ...] = Field(min_length=1, description="ids of the columns of a window")
    units: tuple[str, ...]
    rows: int = Field(ge=1, description="rows of a window")
    period: int = Field(gt=0, description="nanoseconds per row")
    fill: tuple[Cell, ...] = Field(description="by channel: what stands for a bad cell, the training median")
    input: InputSpec = InputSpec()
    score: Rule = OutputRule()
    limit: Divisor
    spans: tuple[Span, ...] = Field(max_length=_SPANS_MOST)
    scales: tuple[Divisor, ...] = Field(max_length=_SPANS_MOST)
    normal: dict[str, tuple[Cell, Spread]] = Field(description="mean and standard deviation in training")
    usual: dict[str, Cell] = Field({}, description="what a channel adds to the score of a normal row")
    stuck_rows: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="rows without change that mean a stuck sensor"
    )
    by: str = Field("", description="the channel whose value says in which regime the machine runs")
    regimes: tuple[Regime, ...] = ()
    left_out: dict[str, str] = Field({}, description="channels that were offered and not learned, and why")
    trained_rows: int = Field(0, ge=0)
    calibrated_rows: int = Field(0, ge=0)
    trained_utc: tuple[str, str] | None = Field(None, description="first and last row of training, ISO 8601")
    golden_windows: tuple[tuple[float, ...], ...] = Field(
        (), description="flat windows, and what they must score"
    )
    golden_scores: tuple[float, ...] = ()
    golden_contributions: tuple[tuple[float, ...], ...] = Field(
        (), description="by channel, of the first golden windows"
    )
    golden_tolerance: float = Field(
        1e-4, gt=0, le=0.05, description="by how much of itself a score may be off"
    )
    sha256: str = Field("", description="of model.tflite")
    checksum: str = Field("", description="sha256 of all other values; without it, none of them is checked")
    signature: Signature | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width = len(self.channels)
        if len(set(self.channels)) != width:
            raise ValueError("channels names one twice")
        if not len(self.units) == len(self.fill) == width:
            raise ValueError("units and fill want one value for each channel")
        if not len(self.spans) == len(self.scales) > 0:
            raise ValueError("spans and scales want the same number of values")
        self._check_score(width)
        self._check_golden(width)
        self._check_regimes(width)
        return self

    def _check_score(self, width: int) -> None:
        for each in (self.input.mean, self.input.std):
            if len(each) not in (0, width):
                raise ValueError("input.mean and input.std want one value for each channel, or none")
        if len(self.input.mean) != len(self.input.std) or any(each <= 0 for each in self.input.std):
            raise ValueError("input.mean and input.std go together, and std is positive")
        rule = self.score
        if isinstance(rule, OutputRule) and any(not 0 <= each < width for each in rule.contribution_columns):
            raise ValueError("contribution_columns names a channel that is not there")
        if isinstance(rule, _ErrorRule) and (
            len(rule.spread) not in (0, width) or any(each <= 0 for each in rule.spread)
        ):
            raise ValueError("score.spread wants one positive value for each channel, or none")
        if isinstance(rule, ForecastRule) and rule.horizon >= self.rows:
            raise ValueError(f"a forecast of {rule.horizon} rows leaves none of {self.rows} to see")

    def _check_golden(self, width: int) -> None:
        if len(self.golden_windows) != len(self.golden_scores) or any(
            len(each) != self.rows * width for each in self.golden_windows
        ):
            raise ValueError("golden_windows want one score each, and a value for each row and channel")
        if len(self.golden_contributions) > len(self.golden_windows) or any(
            len(each) != width for each in self.golden_contributions
        ):
            raise ValueError("golden_contributions want a golden window each, and a value for each channel")

    def _check_regimes(self, width: int) -> None:
        if bool(self.by) != bool(self.regimes):
            raise ValueError("by and regimes go together")
        for each in self.regimes:
            if not len(each.mean) == len(each.std) == width or any(std <= 0 for std in each.std):
                raise ValueError("a regime wants mean and a positive std for each channel")
        if len({each.value for each in self.regimes}) != len(self.regimes):
            raise ValueError("regimes has a value twice")
        if self.regimes and not self.normal.keys() >= set(self.channels):
            raise ValueError("regimes want `normal` of every channel")

    @property
    def calibration(self) -> Calibration:
        """How scores of this model are judged."""
        return Calibration(
            self.limit, self.spans, self.scales, self.normal, self.usual, self.stuck_rows,
            tuple(each.value for each in self.regimes),
        )  # fmt: skip


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes that a manifest's checksum and signature are of: all it says but for these two.

    Format 1 hashed its values in the order of the file.
    """
    said = {key: value for key, value in document.items() if key not in _UNSIGNED}
    if document.get("format", _FORMAT) == 1:
        return to_json(said)
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def upgraded(document: Document) -> Document:
    """The same manifest in today's format."""
    if document.get("format", _FORMAT) != 1:
        return document
    columns = document.get("contribution_columns", [])
    score = {
        "rule": "output",
        "output": "score",
        "contribution": "contribution",
        "contribution_columns": columns,
    }
    kept = {key: value for key, value in document.items() if key != "contribution_columns"}
    return kept | {"format": _FORMAT, "score": score}
