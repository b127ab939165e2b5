"""A linear detector as a TensorFlow Lite file.

    windows (n, w·C) ─ SUB mean ─ MUL 1/std ─ FULLY_CONNECTED weight ─ MUL itself ─▶ contribution (n, outputs)
                                                                                └─ SUM ─▶ score (n,)

Written with the schema's own accessors. Source: tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3.
Constants are aligned to 16 bytes and operators are stamped version 1, or runtimes of 2023 refuse the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import flatbuffers
import numpy as np
import tflite as schema

from dxad.training.linear import LinearDetector

__all__ = ["Operator", "Tensor", "Writer", "to_tflite"]

_INPUT: Final = "windows"
_OUTPUTS: Final = ("score", "contribution")
_ALIGNMENT: Final = 16


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    constant: bytes | None = None
    """None: one row per window, computed."""
    type: int = schema.TensorType.FLOAT32
    scale: float = 0.0
    """What one step of an integer is worth, if it stands for a real number."""
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """One step: a builtin operator, with the options its schema has."""

    code: int
    inputs: tuple[str | None, ...]
    output: str
    options_type: int
    options: Callable[[Any], int]
    version: int = 1


def to_tflite(detector: LinearDetector) -> bytes:
    """The file's bytes; its scores equal `detector.score` within single precision."""
    outputs, inputs = detector.weight.shape
    tensors = (
        Tensor(_INPUT, (1, inputs)),
        _constant("mean", (1, inputs), detector.mean),
        _constant("inv_std", (1, inputs), detector.inv_std),
        _constant("weight", (outputs, inputs), detector.weight),
        Tensor("axis", (1,), np.array([1], "<i4").tobytes(), schema.TensorType.INT32),
        Tensor("centred", (1, inputs)),
        Tensor("z", (1, inputs)),
        Tensor("residual", (1, outputs)),
        Tensor("contribution", (1, outputs)),
        Tensor("score", (1,)),
    )
    code, options = schema.BuiltinOperator, schema.BuiltinOptions
    square = _empty(schema.MulOptionsStart, schema.MulOptionsEnd)
    operators = (
        Operator(
            code.SUB, (_INPUT, "mean"), "centred", options.SubOptions,
            _empty(schema.SubOptionsStart, schema.SubOptionsEnd),
        ),
        Operator(code.MUL, ("centred", "inv_std"), "z", options.MulOptions, square),
        Operator(
            code.FULLY_CONNECTED, ("z", "weight", None), "residual", options.FullyConnectedOptions,
            _empty(schema.FullyConnectedOptionsStart, schema.FullyConnectedOptionsEnd),
        ),
        Operator(code.MUL, ("residual", "residual"), "contribution", options.MulOptions, square),
        Operator(code.SUM, ("contribution", "axis"), "score", options.ReducerOptions, _reducer),
    )  # fmt: skip
    return Writer(tensors, operators, outputs=_OUTPUTS).file("dxad linear detector")


def _constant(name: str, shape: tuple[int, ...], values: np.ndarray[Any, Any]) -> Tensor:
    return Tensor(name, shape, np.ascontiguousarray(values, dtype="<f4").tobytes())


def _empty(start: Callable[[Any], None], end: Callable[[Any], int]) -> Callable[[Any], int]:
    def options(builder: Any) -> int:
        start(builder)
        return end(builder)

    return options


def _reducer(builder: Any) -> int:
    schema.ReducerOptionsStart(builder)
    schema.ReducerOptionsAddKeepDims(builder, False)
    return int(schema.ReducerOptionsEnd(builder))


class Writer:
    """Lays the parts of a model out in a flatbuffer: children before their parents."""

    def __init__(
        self, tensors: Sequence[Tensor], operators: Sequence[Operator], *, outputs: Sequence[str]
    ) -> None:
        """Write `tensors`, the first of which is the input, computed by `operators` in this order."""
        self._outputs = outputs
        self._tensors = tensors
        self._operators = operators
        self._place = {tensor.name: place for place, tensor in enumerate(tensors)}
        self._codes = sorted({(operator.code, operator.version) for operator in operators})
        size = sum(len(tensor.constant or b"") for tensor in tensors)
        self._builder = flatbuffers.Builder(size + 4096)

    def file(self, description: str) -> bytes:
        """The finished file."""
        b = self._builder
        buffers = [self._buffer(b"")]
        tensors = []
        for tensor in self._tensors:
            if tensor.constant is not None:
                buffers.append(self._buffer(tensor.constant))
            tensors.append(self._tensor(tensor, 0 if tensor.constant is None else len(buffers) - 1))
        graph = self._graph(tensors)
        codes = [self._code(*each) for each in self._codes]
        signature = self._signature()
        graphs = self._vector(schema.ModelStartSubgraphsVector, [graph])
        codes_vector = self._vector(schema.ModelStartOperatorCodesVector, codes)
        buffers_vector = self._vector(schema.ModelStartBuffersVector, buffers)
        signatures = self._vector(schema.ModelStartSignatureDefsVector, [signature])
        text = b.CreateString(description)
        schema.ModelStart(b)
        schema.ModelAddVersion(b, 3)
        schema.ModelAddSubgraphs(b, graphs)
        schema.ModelAddOperatorCodes(b, codes_vector)
        schema.ModelAddBuffers(b, buffers_vector)
        schema.ModelAddDescription(b, text)
        schema.ModelAddSignatureDefs(b, signatures)
        b.Finish(schema.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _vector(self, start: Callable[[Any, int], None], offsets: Sequence[int]) -> int:
        start(self._builder, len(offsets))
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _integers(self, values: Sequence[int]) -> int:
        return int(self._builder.CreateNumpyVector(np.asarray(values, "<i4")))

    def _buffer(self, content: bytes) -> int:
        b = self._builder
        data = None
        if content:
            b.StartVector(1, len(content), _ALIGNMENT)
            b.head -= len(content)
            b.Bytes[b.head : b.head + len(content)] = content
            data = b.EndVector()
        schema.BufferStart(b)
        if data is not None:
            schema.BufferAddData(b, data)
        return int(schema.BufferEnd(b))

    def _tensor(self, tensor: Tensor, buffer: int) -> int:
        b = self._builder
        name, shape = b.CreateString(tensor.name), self._integers(tensor.shape)
        signature = self._integers((-1, *tensor.shape[1:])) if tensor.constant is None else None
        quantisation = self._quantisation(tensor) if tensor.scale else None
        schema.TensorStart(b)
        schema.TensorAddName(b, name)
        schema.TensorAddShape(b, shape)
        schema.TensorAddType(b, tensor.type)
        schema.TensorAddBuffer(b, buffer)
        if signature is not None:
            schema.TensorAddShapeSignature(b, signature)
        if quantisation is not None:
            schema.TensorAddQuantization(b, quantisation)
        return int(schema.TensorEnd(b))

    def _quantisation(self, tensor: Tensor) -> int:
        b = self._builder
        scale = b.CreateNumpyVector(np.array([tensor.scale], "<f4"))
        zero_point = b.CreateNumpyVector(np.array([tensor.zero_point], "<i8"))
        schema.QuantizationParametersStart(b)
        schema.QuantizationParametersAddScale(b, scale)
        schema.QuantizationParametersAddZeroPoint(b, zero_point)
        return int(schema.QuantizationParametersEnd(b))

    def _graph(self, tensors: Sequence[int]) -> int:
        b = self._builder
        operators = [self._operator(each) for each in self._operators]
        tensors_vector = self._vector(schema.SubGraphStartTensorsVector, tensors)
        operators_vector = self._vector(schema.SubGraphStartOperatorsVector, operators)
        inputs = self._integers([0])
        outputs = self._integers([self._place[name] for name in self._outputs])
        schema.SubGraphStart(b)
        schema.SubGraphAddTensors(b, tensors_vector)
        schema.SubGraphAddInputs(b, inputs)
        schema.SubGraphAddOutputs(b, outputs)
        schema.SubGraphAddOperators(b, operators_vector)
        return int(schema.SubGraphEnd(b))

    def _operator(self, operator: Operator) -> int:
        b = self._builder
        inputs = self._integers([-1 if name is None else self._place[name] for name in operator.inputs])
        outputs = self._integers([self._place[operator.output]])
        options = operator.options(b)
        schema.OperatorStart(b)
        schema.OperatorAddOpcodeIndex(b, self._codes.index((operator.code, operator.version)))
        schema.OperatorAddInputs(b, inputs)
        schema.OperatorAddOutputs(b, outputs)
        schema.OperatorAddBuiltinOptionsType(b, operator.options_type)
        schema.OperatorAddBuiltinOptions(b, options)
        return int(schema.OperatorEnd(b))

    def _code(self, code: int, version: int) -> int:
        b = self._builder
        schema.OperatorCodeStart(b)
        schema.OperatorCodeAddDeprecatedBuiltinCode(b, min(code, 127))
        schema.OperatorCodeAddBuiltinCode(b, code)
        schema.OperatorCodeAddVersion(b, version)
        return int(schema.OperatorCodeEnd(b))

    def _signature(self) -> int:
        b = self._builder
        inputs = self._vector(schema.SignatureDefStartInputsVector, [self._named(self._tensors[0].name)])
        outputs = self._vector(
            schema.SignatureDefStartOutputsVector, [self._named(name) for name in self._outputs]
        )
        key = b.CreateString("serving_default")
        schema.SignatureDefStart(b)
        schema.SignatureDefAddInputs(b, inputs)
        schema.SignatureDefAddOutputs(b, outputs)
        schema.SignatureDefAddSignatureKey(b, key)
        schema.SignatureDefAddSubgraphIndex(b, 0)
        return int(schema.SignatureDefEnd(b))

    def _named(self, name: str) -> int:
        b = self._builder
        text = b.CreateString(name)
        schema.TensorMapStart(b)
        schema.TensorMapAddName(b, text)
        schema.TensorMapAddTensorIndex(b, self._place[name])
        return int(schema.TensorMapEnd(b))
