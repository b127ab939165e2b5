"""Small dense nets as TensorFlow Lite files, with weights of a seed's choice."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import tflite as schema

from dxad.training.graph import Operator, Tensor, Writer

__all__ = ["dense"]


def dense(sizes: Sequence[int], *, seed: int = 0, output: str = "reconstruction") -> bytes:
    """A net such as 64-32-8-32-64: ReLU between its layers, one row per window; input `windows`."""
    rng = np.random.default_rng(seed)
    tensors = [Tensor("windows", (1, sizes[0]))]
    operators = []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = layer == len(sizes) - 2
        name = output if last else f"layer{layer}"
        weight = rng.normal(scale=inputs**-0.5, size=(outputs, inputs)).astype("<f4")
        bias = rng.normal(scale=0.1, size=outputs).astype("<f4")
        before = tensors[0].name if layer == 0 else f"layer{layer - 1}"
        tensors += [
            Tensor(f"weight{layer}", weight.shape, weight.tobytes()),
            Tensor(f"bias{layer}", bias.shape, bias.tobytes()),
            Tensor(name, (1, outputs)),
        ]
        operators.append(
            Operator(
                schema.BuiltinOperator.FULLY_CONNECTED,
                (before, f"weight{layer}", f"bias{layer}"),
                name,
                schema.BuiltinOptions.FullyConnectedOptions,
                _linear if last else _rectified,
            )
        )
    return Writer(tensors, operators, outputs=[output]).file("dense net")


def _linear(builder: Any) -> int:
    schema.FullyConnectedOptionsStart(builder)
    return int(schema.FullyConnectedOptionsEnd(builder))


def _rectified(builder: Any) -> int:
    schema.FullyConnectedOptionsStart(builder)
    schema.FullyConnectedOptionsAddFusedActivationFunction(builder, schema.ActivationFunctionType.RELU)
    return int(schema.FullyConnectedOptionsEnd(builder))
