"""Small dense nets as TensorFlow Lite files, with weights of a seed's choice, or given ones."""

from itertools import pairwise

import numpy as np
import tflite as schema

from dxad.training.graph import Operator, Tensor, Writer

__all__ = ["autoencoder", "dense"]


def dense(
    sizes: tuple[int, ...],
    *,
    shape: tuple[int, ...] | None = None,
    kind: str = "float",
    seed: int = 0,
    layers: list[tuple[np.ndarray, np.ndarray]] | None = None,
    softmax: bool = False,
    name: str = "out",
) -> bytes:
    """`sizes` are the widths from input to output; ReLU between them; `kind` is float, int8 or hybrid."""
    rng = np.random.default_rng(seed)
    if layers is None:
        layers = [
            (rng.normal(size=(wide, deep)) / np.sqrt(deep), 0.1 * rng.normal(size=wide))
            for deep, wide in pairwise(sizes)
        ]
    whole, step = kind == "int8", 8.0 / 127  # what flows through an int8 net lies within +-8
    flow = {"type": schema.TensorType.INT8, "scale": step} if whole else {}
    tensors = [Tensor("in", (1, *(shape or (sizes[0],))), **flow)]
    operators = []
    before = "in"
    versions = {"float": 1, "hybrid": 3, "int8": 4}
    for number, (weight, bias) in enumerate(layers):
        last = number == len(layers) - 1
        after = name if last and not softmax else f"h{number}"
        if kind == "float":
            tensors.append(Tensor(f"w{number}", weight.shape, weight.astype("<f4").tobytes()))
            tensors.append(Tensor(f"b{number}", bias.shape, bias.astype("<f4").tobytes()))
        else:
            scale = float(np.abs(weight).max()) / 127
            rounded = np.rint(weight / scale).astype("<i1").tobytes()
            tensors.append(Tensor(f"w{number}", weight.shape, rounded, schema.TensorType.INT8, scale))
            if whole:
                integers = np.rint(bias / (scale * step)).astype("<i4").tobytes()
                tensors.append(
                    Tensor(f"b{number}", bias.shape, integers, schema.TensorType.INT32, scale * step)
                )
            else:
                tensors.append(Tensor(f"b{number}", bias.shape, bias.astype("<f4").tobytes()))
        tensors.append(Tensor(after, (1, len(bias)), **flow))

        def options(builder, relu=not last):
            schema.FullyConnectedOptionsStart(builder)
            if relu:
                schema.FullyConnectedOptionsAddFusedActivationFunction(
                    builder, schema.ActivationFunctionType.RELU
                )
            return schema.FullyConnectedOptionsEnd(builder)

        operators.append(
            Operator(
                schema.BuiltinOperator.FULLY_CONNECTED, (before, f"w{number}", f"b{number}"), after,
                schema.BuiltinOptions.FullyConnectedOptions, options, versions[kind],
            )
        )  # fmt: skip
        before = after
    if softmax:

        def beta(builder):
            schema.SoftmaxOptionsStart(builder)
            schema.SoftmaxOptionsAddBeta(builder, 1.0)
            return schema.SoftmaxOptionsEnd(builder)

        tensors.append(Tensor(name, (1, sizes[-1])))
        operators.append(
            Operator(
                schema.BuiltinOperator.SOFTMAX, (before,), name, schema.BuiltinOptions.SoftmaxOptions, beta
            )
        )
    return Writer(tensors, operators, outputs=[name]).file("test")


def autoencoder(sizes: tuple[int, ...], *, seed: int = 0) -> bytes:
    """A dense net whose graph ends in its own score: the sum of the squares of what it gets wrong."""
    rng = np.random.default_rng(seed)
    code, options = schema.BuiltinOperator, schema.BuiltinOptions
    tensors, operators, before = [Tensor("in", (1, sizes[0]))], [], "in"
    for number, (deep, wide) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        weight = (rng.normal(size=(wide, deep)) / np.sqrt(deep)).astype("<f4")
        tensors += [Tensor(f"w{number}", weight.shape, weight.tobytes()), Tensor(f"h{number}", (1, wide))]

        def fully_connected(builder, relu=not last):
            schema.FullyConnectedOptionsStart(builder)
            if relu:
                kind = schema.ActivationFunctionType.RELU
                schema.FullyConnectedOptionsAddFusedActivationFunction(builder, kind)
            return schema.FullyConnectedOptionsEnd(builder)

        operators.append(
            Operator(
                code.FULLY_CONNECTED, (before, f"w{number}", None), f"h{number}",
                options.FullyConnectedOptions, fully_connected,
            )
        )  # fmt: skip
        before = f"h{number}"

    def plain(start, end):
        def written(builder):
            start(builder)
            return end(builder)

        return written

    def summed(builder):
        schema.ReducerOptionsStart(builder)
        schema.ReducerOptionsAddKeepDims(builder, False)
        return schema.ReducerOptionsEnd(builder)

    tensors += [
        Tensor("axis", (1,), np.array([1], "<i4").tobytes(), schema.TensorType.INT32),
        Tensor("error", (1, sizes[-1])), Tensor("square", (1, sizes[-1])), Tensor("score", (1,)),
    ]  # fmt: skip
    difference = plain(schema.SubOptionsStart, schema.SubOptionsEnd)
    product = plain(schema.MulOptionsStart, schema.MulOptionsEnd)
    operators += [
        Operator(code.SUB, (before, "in"), "error", options.SubOptions, difference),
        Operator(code.MUL, ("error", "error"), "square", options.MulOptions, product),
        Operator(code.SUM, ("square", "axis"), "score", options.ReducerOptions, summed),
    ]
    return Writer(tensors, operators, outputs=["score"]).file("test")
