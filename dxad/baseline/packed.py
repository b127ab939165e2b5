"""Arrays inside a JSON document: base64 of little-endian floats, a third larger than in memory and exact."""

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

from dxad.errors import ModelError
from dxad.types import F4, F8, Document

__all__ = ["pack", "unpack", "unpack_single"]


def pack(array: F4 | F8) -> str:
    """The numbers in C order, in their own precision; NaN and infinities are kept to the bit."""
    kind = "<f4" if array.dtype == np.float32 else "<f8"
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode()


def unpack(state: Document, key: str, shape: tuple[int, ...]) -> F8:
    """The array of doubles that `pack` was given, of this shape, and the caller's own.

    Raises:
        ModelError: it is missing, damaged, or of another size.
    """
    found: F8 = _numbers(state, key, "<f8", shape).astype(np.float64)
    return found


def unpack_single(state: Document, key: str, shape: tuple[int, ...]) -> F4:
    """Likewise, of an array in single precision."""
    found: F4 = _numbers(state, key, "<f4", shape).astype(np.float32)
    return found


def _numbers(state: Document, key: str, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        return np.frombuffer(base64.b64decode(state[key], validate=True), dtype=kind).reshape(shape)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ModelError(f"the saved state has no {key!r} of {'x'.join(map(str, shape))} numbers") from error
