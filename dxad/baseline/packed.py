"""Arrays inside a JSON document: base64 of little-endian float64, a third larger than in memory and exact."""

import base64
import binascii

import numpy as np

from dxad.errors import ModelError
from dxad.types import F8, Document

__all__ = ["pack", "unpack"]


def pack(array: F8) -> str:
    """The numbers in C order; NaN and infinities are kept to the bit."""
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f8").tobytes()).decode()


def unpack(state: Document, key: str, shape: tuple[int, ...]) -> F8:
    """The array that `pack` made, of this shape, and the caller's own.

    Raises:
        ModelError: it is missing, damaged, or of another size.
    """
    try:
        raw = base64.b64decode(state[key], validate=True)
        return np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(shape)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ModelError(f"the saved state has no {key!r} of {'x'.join(map(str, shape))} numbers") from error
