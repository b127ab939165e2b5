"""Arithmetic over channels, written as text: `plc.power / plc.flow`, `plc.running == 1 and vib.x.rms > 3`.

The text is parsed to Python's syntax tree, and the few kinds of node that are listed below become closures
over numpy; everything else is refused, and no text is ever run as Python. A channel is written as its id, or
as `ch("my-src.x-1")` where the id is no Python name.

Numbers are float64. What is unknown stays unknown: NaN in any operand makes the result NaN, in comparisons,
`and` and `or` too; only `isnan(x)` tells, and `a if c else b` looks at the branch it takes alone. What has no
finite result (a division by zero, an overflow, the logarithm of a negative number) is NaN as well, and an
infinite value in a column counts as NaN. A statement that is true is 1.0; any number but 0.0 is true.

Source: https://docs.python.org/3/library/ast.html for the tree; the precedence is Python's (Language
Reference, §6.17), so that `-x ** 2` is -(x²) and comparisons can be chained.
"""

import ast
import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dxad.errors import ConfigError
from dxad.types import F8, Channel

__all__ = ["Expression", "compile_expression"]

_LENGTH_MAX: Final = 2000
"""Characters."""
_DEPTH_MAX: Final = 100
"""Levels of the tree: a sum of so many terms, or so many brackets within each other."""
_EXPONENT_MAX: Final = 64.0
_SHOWN_MAX: Final = 80
"""Characters of a text that a message repeats as a whole."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9][A-Za-z0-9_-]*)+")
_CONSTANTS: Final = {"pi": np.pi, "e": np.e, "true": 1.0, "false": 0.0}

_Ufunc = Callable[..., Any]
_Run = Callable[[Sequence[F8]], F8]


@dataclass(frozen=True, slots=True)
class _Function:
    """One that can be called, or an operator."""

    ufunc: _Ufunc
    arity: tuple[int, int] = (1, 1)
    """The fewest and the most arguments."""
    absorbs: bool = False
    """Whether an infinite argument may give a finite result: it has to become NaN first."""


def _clip(x: F8, low: F8, high: F8) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _power(x: F8, y: F8) -> Any:
    return np.power(x, y) + ((x - x) + (y - y))  # NaN ** 0 would be 1


_UNARY: Final = {ast.USub: _Function(np.negative), ast.UAdd: _Function(np.positive)}
_BINARY: Final = {
    ast.Add: _Function(np.add),
    ast.Sub: _Function(np.subtract),
    ast.Mult: _Function(np.multiply),
    ast.Div: _Function(np.divide),  # its divisor is made tame apart
    ast.FloorDiv: _Function(np.floor_divide, absorbs=True),
    ast.Mod: _Function(np.remainder, absorbs=True),
    ast.Pow: _Function(_power, absorbs=True),
}
_COMPARISONS: Final[Mapping[type[ast.cmpop], _Ufunc]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_FUNCTIONS: Final = {
    "abs": _Function(np.absolute),
    "min": _Function(np.minimum, (2, 20), absorbs=True),
    "max": _Function(np.maximum, (2, 20), absorbs=True),
    "sqrt": _Function(np.sqrt),
    "exp": _Function(np.exp, absorbs=True),
    "log": _Function(np.log),
    "log10": _Function(np.log10),
    "log2": _Function(np.log2),
    "sin": _Function(np.sin),
    "cos": _Function(np.cos),
    "tan": _Function(np.tan),
    "atan2": _Function(np.arctan2, (2, 2), absorbs=True),
    "hypot": _Function(np.hypot, (2, 2), absorbs=True),  # hypot(inf, nan) is inf
    "floor": _Function(np.floor),
    "ceil": _Function(np.ceil),
    "round": _Function(np.rint),
    "sign": _Function(np.sign, absorbs=True),
    "clip": _Function(_clip, (3, 3), absorbs=True),
    "isnan": _Function(lambda x: np.isnan(x).astype(np.float64), absorbs=True),
}
_OPERATORS: Final = "+ - * / // % ** < <= > >= == != and or not, and `a if c else b`"
_ALLOWED: Final = (
    f'allowed are numbers, channels (plc.flow, or ch("my-src.x-1")), {_OPERATORS}, the functions '
    f"{', '.join(_FUNCTIONS)}, and {', '.join(_CONSTANTS)}"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the expression, ready to run."""

    run: _Run
    constant: F8 | None = None
    """Its value, of no dimension, where it reads no channel."""
    tame: bool = True
    """Whether it gives finite numbers and NaN only."""


class Expression:
    """A formula over channels: compiled once, applied to columns of any length."""

    def __init__(self, text: str, names: tuple[str, ...], run: _Run) -> None:
        """Made by `compile_expression`."""
        self.text = text
        self.names = names
        """The ids of the channels it reads, in the order in which they first appear."""
        self._run = run

    def __call__(self, columns: Mapping[str, F8]) -> F8:
        """Work it out for equally long columns (n,), by channel id; a new array (n,) of f8, finite or NaN."""
        # Contiguous, since numpy's loops for strided data may differ from those in the last bit.
        given = [np.ascontiguousarray(columns[name]) for name in self.names]
        with np.errstate(all="ignore"):
            return self._run(given)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def places(self, channels: Sequence[Channel]) -> list[int]:
        """Where among `channels` each of its names stands.

        Raises:
            ConfigError: a channel is not there.
        """
        known = {channel.id: place for place, channel in enumerate(channels)}
        for name in self.names:
            if name not in known:
                raise ConfigError(f"{self.text!r}: no channel {name!r} here, {_suggestion(name, known)}")
        return [known[name] for name in self.names]


def compile_expression(text: str) -> Expression:
    """Make a formula of its text.

    Raises:
        ConfigError: it holds something that is not allowed, or reads no channel; says in which column.
    """
    if len(text) > _LENGTH_MAX:
        raise ConfigError(f"the expression has {len(text)} characters; {_LENGTH_MAX} at most")
    compiler = _Compiler(text)
    part = _tamed(compiler.compile(_parsed(text), 1))
    if not compiler.names:
        raise ConfigError(f"the expression {text!r} reads no channel; a channel is written as plc.flow")
    return Expression(text, tuple(compiler.names), part.run)


def _mistake(text: str, at: int, what: str) -> ConfigError:
    """At the 0-based place `at` of the text."""
    near = text if len(text) <= _SHOWN_MAX else f"{text[max(0, at - 20) : at + 40]} …"
    return ConfigError(f"column {at + 1} of {near!r}: {what}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _parsed(text: str) -> ast.expr:
    """The tree; its columns count from the first character of the text that is no blank."""
    for at, letter in enumerate(text):
        if letter == "#" or not (letter.isascii() and (letter.isprintable() or letter.isspace())):
            raise _mistake(text, at, f"the character {letter!r} is not known; {_ALLOWED}")
    line = re.sub(r"\s", " ", text)
    indent = len(line) - len(line.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "1if" and the like
            return ast.parse(line.strip(), mode="eval").body
    except SyntaxError as error:
        at = indent + (error.offset - 1 if error.offset else len(line.strip()))
        raise _mistake(text, at, f"{error.msg}; {_ALLOWED}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _mistake(text, indent, f"too deep; {_DEPTH_MAX} levels at most") from error


class _Compiler:
    """From nodes to parts."""

    def __init__(self, text: str) -> None:
        self.names: dict[str, int] = {}
        """By channel id, its place in what the closures are given."""
        self._text = text
        self._indent = len(text) - len(text.lstrip())
        self._kinds: dict[type[ast.expr], Callable[[Any, int], _Part]] = {
            ast.Constant: self._number,
            ast.Name: self._name,
            ast.Attribute: lambda node, _: self._channel(node, self._dotted(node)),
            ast.Call: self._call,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.BoolOp: self._logic,
            ast.Compare: self._comparison,
            ast.IfExp: self._choice,
        }

    def compile(self, node: ast.expr, depth: int) -> _Part:
        """The part that a node at this depth of the tree is."""
        if depth > _DEPTH_MAX:
            raise self._mistake(node, f"too deep; {_DEPTH_MAX} levels at most")
        if type(node) not in self._kinds:
            raise self._refusal(node, node)
        return self._kinds[type(node)](node, depth)

    def _parts(self, nodes: Iterable[ast.expr], depth: int) -> list[_Part]:
        return [self.compile(node, depth + 1) for node in nodes]

    def _mistake(self, node: ast.expr, what: str) -> ConfigError:
        return _mistake(self._text, self._indent + node.col_offset, what)

    def _refusal(self, node: ast.expr, kind: ast.AST) -> ConfigError:
        return self._mistake(node, f"{type(kind).__name__} is not allowed here; {_ALLOWED}")

    def _number(self, node: ast.Constant, _depth: int) -> _Part:
        if not isinstance(node.value, bool | int | float):
            raise self._mistake(node, f"{node.value!r} is no number; {_ALLOWED}")
        try:
            return self._finite(node, float(node.value))
        except OverflowError as error:
            raise self._mistake(node, "the number is too large") from error

    def _name(self, node: ast.Name, _depth: int) -> _Part:
        if node.id in _CONSTANTS:
            return _constant(_CONSTANTS[node.id])
        if node.id in _FUNCTIONS:
            raise self._mistake(node, f"the function {node.id} wants arguments in brackets")
        raise self._mistake(
            node, f"{node.id!r} is no channel, whose id has a dot, and none of {', '.join(_CONSTANTS)}"
        )

    def _finite(self, node: ast.expr, value: float | F8) -> _Part:
        if not np.isfinite(value):
            raise self._mistake(node, "this has no finite value")
        return _constant(value)

    def _dotted(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=value, attr=attribute):
                return f"{self._dotted(value)}.{attribute}"
        raise self._mistake(node, f"only a channel's id has a dot; {_ALLOWED}")

    def _channel(self, node: ast.expr, name: str) -> _Part:
        if not _ID.fullmatch(name):
            raise self._mistake(
                node,
                f"{name!r} is no channel's id: names of letters, digits, _ and -, which begin with a letter "
                "or a digit, joined by dots",
            )
        place = self.names.setdefault(name, len(self.names))
        return _Part(lambda columns: columns[place], tame=False)

    def _call(self, node: ast.Call, depth: int) -> _Part:
        if not isinstance(node.func, ast.Name):
            raise self._mistake(node, f"this cannot be called; {_ALLOWED}")
        name = node.func.id
        if node.keywords:
            raise self._mistake(node.keywords[0].value, f"{name} takes no named arguments")
        if name == "ch":
            match node.args:
                case [ast.Constant(value=str(identifier))]:
                    return self._channel(node.args[0], identifier)
            raise self._mistake(node, 'ch takes the id of one channel in quotes: ch("my-src.x-1")')
        if name not in _FUNCTIONS:
            raise self._mistake(node, f"no function {name!r}, {_suggestion(name, _FUNCTIONS)}")
        function = _FUNCTIONS[name]
        low, high = function.arity
        if not low <= len(node.args) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise self._mistake(node, f"{name} takes {wanted} arguments, not {len(node.args)}")
        return self._applied(node, function, self._parts(node.args, depth))

    def _unary(self, node: ast.UnaryOp, depth: int) -> _Part:
        parts = self._parts([node.operand], depth)
        if isinstance(node.op, ast.Not):
            return self._decision(node, np.logical_not, parts)
        if type(node.op) not in _UNARY:
            raise self._refusal(node, node.op)
        return self._applied(node, _UNARY[type(node.op)], parts)

    def _logic(self, node: ast.BoolOp, depth: int) -> _Part:
        ufunc = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return self._decision(node, ufunc, self._parts(node.values, depth))

    def _binary(self, node: ast.BinOp, depth: int) -> _Part:
        if type(node.op) not in _BINARY:
            raise self._refusal(node, node.op)
        left, right = self._parts([node.left, node.right], depth)
        if isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
            if right.constant == 0:
                raise self._mistake(node.right, "a division by zero")
            right = _tamed(right)
        if isinstance(node.op, ast.Pow) and right.constant is not None:
            if abs(right.constant) > _EXPONENT_MAX:
                raise self._mistake(node.right, f"an exponent is {_EXPONENT_MAX:g} at most")
            if right.constant == 2 and left.constant is None:
                run = left.run

                def squared(columns: Sequence[F8]) -> F8:
                    x = run(columns)
                    return x * x

                return _Part(squared, tame=False)
        return self._applied(node, _BINARY[type(node.op)], [left, right])

    def _applied(self, node: ast.expr, function: _Function, parts: list[_Part]) -> _Part:
        if function.absorbs:
            parts = [_tamed(part) for part in parts]
        made = _Part(_closure(function.ufunc, [part.run for part in parts]), tame=False)
        return self._folded(node, made, parts)

    def _comparison(self, node: ast.Compare, depth: int) -> _Part:
        for op, right in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _COMPARISONS:
                raise self._refusal(right, op)
        parts = self._parts([node.left, *node.comparators], depth)
        ufuncs = [_COMPARISONS[type(op)] for op in node.ops]
        if len(ufuncs) == 1:
            return self._decision(node, ufuncs[0], parts)

        def chained(*values: F8) -> Any:
            pairs = zip(ufuncs, values, values[1:], strict=False)
            return _folding(np.logical_and, [ufunc(left, right) for ufunc, left, right in pairs])

        return self._decision(node, chained, parts, variadic=True)

    def _decision(
        self, node: ast.expr, ufunc: _Ufunc, parts: list[_Part], *, variadic: bool = False
    ) -> _Part:
        """One that is true or false where all its operands are known."""
        runs = [part.run for part in parts]
        varying = [place for place, part in enumerate(parts) if part.constant is None]

        def decided(columns: Sequence[F8]) -> F8:
            values = [run(columns) for run in runs]
            found = ufunc(*values) if variadic or len(values) < 3 else _folding(ufunc, values)
            result: F8 = np.asarray(found, dtype=np.float64)
            for place in varying:
                result = result + (values[place] - values[place])  # 0.0, or NaN where it is not finite
            return result

        return self._folded(node, _Part(decided), parts)

    def _choice(self, node: ast.IfExp, depth: int) -> _Part:
        parts = self._parts([node.test, node.body, node.orelse], depth)
        test, body, orelse = (part.run for part in parts)

        def chosen(columns: Sequence[F8]) -> F8:
            condition = test(columns)
            result: F8 = np.where(condition != 0, body(columns), orelse(columns))
            return result + (condition - condition)

        return self._folded(node, _Part(chosen, tame=False), parts)

    def _folded(self, node: ast.expr, made: _Part, parts: list[_Part]) -> _Part:
        """Its value, if that does not depend on any channel."""
        if any(part.constant is None for part in parts):
            return made
        with np.errstate(all="ignore"):
            return self._finite(node, made.run(()))


def _constant(value: float | F8) -> _Part:
    array: F8 = np.array(value, dtype=np.float64)
    return _Part(lambda _: array, array)


def _tamed(part: _Part) -> _Part:
    """With NaN in place of infinity."""
    if part.tame:
        return part
    run = part.run

    def finite(columns: Sequence[F8]) -> F8:
        x = run(columns)
        result = x - x  # 0.0, or NaN where x is not finite
        result += x
        return result

    return _Part(finite)


def _folding(ufunc: _Ufunc, values: Sequence[F8]) -> F8:
    result = values[0]
    for value in values[1:]:
        result = ufunc(result, value)
    return result


def _closure(ufunc: _Ufunc, runs: list[_Run]) -> _Run:
    match runs:
        case [only]:
            return lambda columns: ufunc(only(columns))
        case [left, right]:
            return lambda columns: ufunc(left(columns), right(columns))
        case [x, low, high] if ufunc is _clip:
            return lambda columns: _clip(x(columns), low(columns), high(columns))
    return lambda columns: _folding(ufunc, [run(columns) for run in runs])
