"""Arrow columns made and read without pandas, which `pyarrow.array` and `to_numpy` import: 1.3 s of processor time
that `ratchet add` does without."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def column(values: Sequence[Any], dtype: pa.DataType) -> pa.Array:
    """Texts, bytes, numbers or booleans, None for none of them, as an Arrow array of `dtype`."""
    validity = _bits([value is not None for value in values])
    if pa.types.is_boolean(dtype):
        return pa.Array.from_buffers(dtype, len(values), [validity, _bits(values)])
    if not (pa.types.is_string(dtype) or pa.types.is_binary(dtype)):
        numbers = np.array([value or 0 for value in values], dtype.to_pandas_dtype())
        return pa.Array.from_buffers(dtype, len(values), [validity, pa.py_buffer(numbers)])
    parts = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    return pa.Array.from_buffers(dtype, len(values), [validity, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))])


def empty(schema: pa.Schema) -> pa.Table:
    """A table without rows."""
    return pa.Table.from_batches([], schema=schema)


def hashes(values: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A column of 64-bit hashes as a NumPy array."""
    return np.array(values.to_pylist(), np.uint64)


def _bits(values: Sequence[bool | None]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(values, bool), bitorder="little"))
