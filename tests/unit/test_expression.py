"""Expressions over channels: what they compute, and everything they refuse to be."""

import ast
import math
import operator
import re
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad.errors import ConfigError
from dxad.expression import compile_expression
from dxad.types import Channel

NAN = float("nan")

# A slow reference: Python's own arithmetic, one number at a time.

ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARE = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS = {
    "abs": abs,
    "min": min,
    "max": max,
    "sqrt": math.sqrt,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "sign": lambda x: (x > 0) - (x < 0),
    "clip": lambda x, low, high: min(max(x, low), high),
}


def reference(node: ast.expr, row: dict[str, float]) -> float:
    match node:
        case ast.Constant(value=value):
            return float(value)
        case ast.Attribute(value=ast.Name(id=source), attr=name):
            value = row[f"{source}.{name}"]
            return value if math.isfinite(value) else NAN
        case ast.Call(func=ast.Name(id="isnan"), args=[only]):
            return float(math.isnan(reference(only, row)))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            condition = reference(test, row)
            taken, other = reference(body, row), reference(orelse, row)
            return NAN if math.isnan(condition) else taken if condition else other
    return applied(node, row)


def applied(node: ast.expr, row: dict[str, float]) -> float:
    nodes = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
    values = [reference(each, row) for each in nodes if not isinstance(node, ast.Call) or each in node.args]
    if any(math.isnan(value) for value in values):
        return NAN
    try:
        found: Any = known(node, values)
        result = float(found)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError):  # a TypeError: a complex root
        return NAN
    return result if math.isfinite(result) else NAN


def known(node: ast.expr, values: list[float]) -> Any:
    match node:
        case ast.BinOp(op=op):
            return ARITHMETIC[type(op)](*values)
        case ast.UnaryOp(op=op):
            return values[0] == 0 if isinstance(op, ast.Not) else -values[0]
        case ast.BoolOp(op=op):
            return (all if isinstance(op, ast.And) else any)(values)
        case ast.Compare(ops=ops):
            pairs = zip(ops, values, values[1:], strict=False)
            return all(COMPARE[type(op)](left, right) for op, left, right in pairs)
        case ast.Call(func=ast.Name(id=name)):
            return FUNCTIONS[name](*values)
    raise AssertionError(ast.dump(node))


PLAIN = ("abs", "sqrt", "floor", "ceil", "round", "sign")
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=", "and", "or")


def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    three = st.tuples(inner, inner, inner)
    return st.one_of(
        st.builds("({0[0]} {1} {0[1]})".format, pair, st.sampled_from(["+", "-", "*", "/", "//", "%"])),
        st.builds("({0[0]} {1} {0[1]})".format, pair, st.sampled_from(["<", "<=", ">", ">=", "==", "!="])),
        st.builds("({0[0]} < {0[1]} != {0[2]})".format, three),
        st.builds("({0[0]} {1} {0[1]} {1} {0[2]})".format, three, st.sampled_from(["and", "or"])),
        st.builds("({0[0]} if {0[1]} else {0[2]})".format, three),
        st.builds("{1}({0})".format, inner, st.sampled_from(["-", "not "])).map("({})".format),
        st.builds("{1}({0})".format, inner, st.sampled_from([*PLAIN, "isnan"])),
        st.builds("{1}({0[0]}, {0[1]})".format, pair, st.sampled_from(["min", "max"])),
        st.builds("max({0[0]}, {0[1]}, {0[2]})".format, three),
        st.builds("clip({0}, -2, 2.5)".format, inner),
        st.builds("({0} ** 2)".format, inner),
    )


texts = st.recursive(st.sampled_from(["p.a", "p.b", "p.c", "0", "1", "2.5", "1e300"]), wider, max_leaves=12)
numbers = st.one_of(
    st.sampled_from([NAN, 0.0, 1.0, -1.0, 2.5, 1e308, -1e308, 5e-324, math.inf, -math.inf]),
    st.integers(-5, 5).map(float),
    st.floats(),
)


@given(text=texts, rows=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
def test_it_computes_what_python_would_one_number_at_a_time(text, rows):
    text = f"p.a + p.b * 0 + p.c * 0 + {text}"
    try:
        formula = compile_expression(text)
    except ConfigError as error:
        assert re.search(r"no finite value|division by zero|too deep", str(error))  # noqa: PT017
        return
    columns = {f"p.{name}": np.array([row[at] for row in rows]) for at, name in enumerate("abc")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = formula(columns)
    tree = ast.parse(text, mode="eval").body
    expected = [reference(tree, dict(zip(["p.a", "p.b", "p.c"], row, strict=True))) for row in rows]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("exp(p.a)", math.exp),
        ("log(p.a)", math.log),
        ("log10(p.a)", math.log10),
        ("log2(p.a)", math.log2),
        ("sin(p.a)", math.sin),
        ("cos(p.a)", math.cos),
        ("tan(p.a)", math.tan),
        ("atan2(p.a, 2)", lambda a: math.atan2(a, 2)),
        ("hypot(p.a, 3)", lambda a: math.hypot(a, 3)),
        ("p.a ** 1.5", lambda a: a**1.5),
        ("10 ** (p.a / 20)", lambda a: 10 ** (a / 20)),
        ("p.a * pi / 180 + e * true - false", lambda a: a * math.pi / 180 + math.e),
        ("-p.a ** 2", lambda a: -(a**2)),
        ("+p.a", lambda a: a),
    ],
)
def test_functions_and_constants_are_those_of_mathematics(text, function):
    column = np.array([0.001, 0.5, 1.0, 3.0, 40.0])
    expected = [function(a) for a in column]
    np.testing.assert_allclose(compile_expression(text)({"p.a": column}), expected, rtol=1e-14)


EVERYTHING = [
    *(f"{name}(p.a)" for name in (*PLAIN, "exp", "log", "log10", "log2", "sin", "cos", "tan")),
    *(f"p.a {op} 2" for op in OPERATORS),
    *(f"p.a {op} p.b" for op in OPERATORS),
    *(f"{name}(p.a, p.b)" for name in ("min", "max", "atan2", "hypot")),
    "p.a ** 0",
    "1 ** p.a",
    "not p.a",
    "-p.a",
    "p.a",
    "1 if p.a else 0",
    "0 < p.a < 1",
    "clip(p.a, 0, 1)",
    "clip(0.5, p.a, 1)",
]


@pytest.mark.parametrize("unknown", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("text", EVERYTHING)
def test_what_is_unknown_stays_unknown(text, unknown):
    columns = {"p.a": np.array([unknown, 0.5]), "p.b": np.array([1.0, 1.0])}
    found = compile_expression(text)(columns)
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


def test_only_isnan_and_the_branch_not_taken_do_not_hand_the_unknown_on():
    columns = {"p.a": np.array([NAN, 2.0]), "p.b": np.array([5.0, 6.0])}
    assert compile_expression("isnan(p.a)")(columns).tolist() == [1.0, 0.0]
    assert compile_expression("p.b if isnan(p.a) else p.a")(columns).tolist() == [5.0, 2.0]


def test_what_has_no_finite_result_is_unknown_and_makes_no_noise():
    columns = {"p.a": np.array([0.0, -1.0, 1e308, 800.0]), "p.b": np.array([0.0, 1.0, 1e308, 2.0])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(compile_expression("p.b / p.a")(columns)).tolist() == [True, False, False, False]
        assert np.isnan(compile_expression("log(p.a)")(columns)).tolist() == [True, True, False, False]
        assert np.isnan(compile_expression("p.a * p.b")(columns)).tolist() == [False, False, True, False]
        assert np.isnan(compile_expression("1 / exp(p.a)")(columns)).tolist() == [False, False, True, True]


@given(seed=st.integers(0, 2**32), at=st.lists(st.integers(0, 70), max_size=6))
@settings(max_examples=60, deadline=None)
def test_no_cut_of_the_columns_changes_a_bit(seed, at):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(70, 2)) * 10.0 ** rng.integers(-3, 3, size=(70, 2))
    edges = [0, *sorted(at), 70]
    for text in EVERYTHING:
        formula = compile_expression(text)

        def run(begin: int, end: int, formula=formula) -> np.ndarray:
            return formula({name: table[begin:end, place] for place, name in enumerate(("p.a", "p.b"))})

        pieces = [run(begin, end) for begin, end in pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(pieces), run(0, 70), err_msg=text)


def test_the_columns_stay_as_they_were_and_the_result_is_new():
    column = np.array([1.0, -2.0])
    for text in EVERYTHING:
        found = compile_expression(text)({"p.a": column, "p.b": column})
        assert found.shape == (2,)
        assert not np.shares_memory(found, column)
    assert column.tolist() == [1.0, -2.0]


def test_no_rows_give_no_results():
    for text in EVERYTHING:
        assert compile_expression(text)({"p.a": np.empty(0), "p.b": np.empty(0)}).shape == (0,)


def test_channels_are_named_in_the_order_in_which_they_appear():
    formula = compile_expression('vib.x.rms + ch("my-src.x-1") * plc.flow - vib.x.rms')
    assert formula.names == ("vib.x.rms", "my-src.x-1", "plc.flow")
    channels = [Channel(name) for name in ("plc.flow", "vib.x.rms", "a.b", "my-src.x-1")]
    assert formula.places(channels) == [1, 3, 0]
    with pytest.raises(ConfigError, match=r"no channel 'vib\.x\.rms' here, did you mean 'vib\.x\.rm'\?"):
        formula.places([Channel("vib.x.rm"), *channels[2:]])


def test_a_text_of_several_lines_is_one_expression():
    formula = compile_expression("\n  p.a\n  + p.b\t* 2\n")
    assert formula({"p.a": np.array([1.0]), "p.b": np.array([2.0])}).tolist() == [5.0]


REFUSED = [
    ("().__class__.__bases__", 1, "only a channel's id has a dot"),
    ("p.__class__", 1, "is no channel's id"),
    ("1 + p._x", 5, "is no channel's id"),
    ("p.a.__class__.__mro__", 1, "is no channel's id"),
    ('ch("p.__class__")', 4, "is no channel's id"),
    ("__import__('os').system('x')", 1, "this cannot be called"),
    ("__import__('os')", 1, "no function '__import__'"),
    ("open('/etc/passwd')", 1, "no function 'open'"),
    ("p.a + eval('1')", 7, "no function 'eval'"),
    ("abz(p.a)", 1, "did you mean 'abs'"),
    ("p.a.b(1)", 1, "this cannot be called"),
    ("(lambda: p.a)()", 1, "this cannot be called"),
    ("lambda: p.a", 1, "Lambda is not allowed"),
    ("[x for x in p.a]", 1, "ListComp is not allowed"),
    ("{x: 1 for x in p.a}", 1, "DictComp is not allowed"),
    ("(x for x in p.a)", 1, "GeneratorExp is not allowed"),
    ("f'{p.a}'", 1, "JoinedStr is not allowed"),
    ("p.a[0]", 1, "Subscript is not allowed"),
    ("(x := p.a)", 2, "NamedExpr is not allowed"),
    ("p.a, p.b", 1, "Tuple is not allowed"),
    ("  p.a >> 2", 3, "RShift is not allowed"),
    ("p.a @ p.b", 1, "MatMult is not allowed"),
    ("~p.a", 1, "Invert is not allowed"),
    ("p.a in (1, 2)", 8, "In is not allowed"),
    ("p.a is 1", 8, "Is is not allowed"),
    ("await p.a", 1, "Await is not allowed"),
    ("abs(*p.a)", 5, "Starred is not allowed"),
    ("abs(x=p.a)", 7, "no named arguments"),
    ("min(p.a)", 1, "min takes 2 to 20 arguments, not 1"),
    ("clip(p.a, 1)", 1, "clip takes 3 arguments, not 2"),
    ("ch(p.a)", 1, "ch takes the id of one channel in quotes"),
    ("ch('p.a', 'p.b')", 1, "ch takes the id of one channel in quotes"),
    ("'text' + p.a", 1, "'text' is no number"),
    ("p.a + None", 7, "None is no number"),
    ("p.a * 1j", 7, "1j is no number"),
    ("p.a + flow", 7, "'flow' is no channel, whose id has a dot"),
    ("p.a + abs", 7, "the function abs wants arguments"),
    ("p.a +", 6, "invalid syntax"),
    ("p.a; p.b", 4, "invalid syntax"),
    ("p.a = 1", 5, "invalid syntax"),
    ("p.if", 3, "invalid syntax"),
    ("1if p.a else 2", 1, "invalid decimal literal"),
    ("", 1, "invalid syntax"),
    ("p.a # note", 5, "the character '#' is not known"),
    ("p.ä", 3, "the character 'ä' is not known"),
    ("p.a\x00", 4, "the character '\\x00' is not known"),
    ("1 / 0 + p.a", 5, "a division by zero"),
    ("p.a % (1 - 1)", 8, "a division by zero"),
    ("p.a + log(-1)", 7, "no finite value"),
    ("p.a + 1e999", 7, "no finite value"),
    ("9 ** 9 ** 9 + p.a", 6, "an exponent is 64 at most"),
    ("p.a ** -65", 8, "an exponent is 64 at most"),
    ("p.a + " + "9" * 400, 7, "the number is too large"),
    ("p.a" + " + p.a" * 200, 1, "too deep"),
]


@pytest.mark.parametrize(("text", "column", "message"), REFUSED, ids=[each[0][:30] for each in REFUSED])
def test_anything_else_is_refused_with_its_place(text, column, message):
    with pytest.raises(ConfigError) as caught:
        compile_expression(text)
    assert str(caught.value).startswith(f"column {column} of ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(" * 1999, "too many nested parentheses"),
        ("(" * 190 + "p.a" + ")" * 190 + "+", "invalid syntax"),
        ("p.a + " * 500, "3000 characters; 2000 at most"),
        ("-" * 1500 + "p.a", "too deep"),
        ("not " * 300 + "p.a", "too deep"),
        ("3 * pi", "reads no channel"),
        ("1" * 1999, "too large|no finite value"),
        ("p.a[" * 400, "too many nested parentheses|not allowed|never closed"),
    ],
)
def test_size_is_bounded(text, message):
    with pytest.raises(ConfigError, match=message):
        compile_expression(text)


def test_a_chain_within_a_chain_is_worked_out_once_per_link():
    # Were the middle one run for each of its two comparisons, this would take 2 ** 60 steps.
    formula = compile_expression("0 <= (" * 60 + "p.a" + ") <= 1" * 60)
    assert formula({"p.a": np.array([0.5, 3.0])}).tolist() == [1.0, 1.0]


@given(st.text(max_size=60) | st.text("p.ab01 ()+-*/<>=andornotif,'[]:{}lmx_", max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_text_does_anything_but_compile_or_be_refused(text):
    try:
        formula = compile_expression(text)
    except ConfigError:
        return
    assert formula.names
    assert formula({name: np.ones(3) for name in formula.names}).shape == (3,)
