"""Estimated size of Arrow rows as Python objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["sizes_of"]

_Counts = npt.NDArray[np.int64]
_VALUE = 8


def sizes_of(batch: pa.RecordBatch) -> tuple[_Counts, _Counts]:
    """Return the bytes of each row, with values of dictionaries in full, and the number of its values."""
    sizes = np.zeros(batch.num_rows, np.int64)
    values = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        more_sizes, more_values = _sizes(column)
        sizes += more_sizes
        values += more_values
    return sizes, values


def _sizes(array: Any) -> tuple[_Counts, _Counts]:
    kind = array.type
    ones = np.ones(len(array), np.int64)
    if isinstance(array, pa.ExtensionArray):
        return _sizes(array.storage)
    if pa.types.is_dictionary(kind):
        of_values, _ = _sizes(array.dictionary)
        places = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return (of_values[places] if len(of_values) else np.zeros(len(array), np.int64)), ones
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or _is_large(kind):
        return _lengths(pc.binary_length(array)), ones
    if pa.types.is_fixed_size_binary(kind):
        return ones * kind.byte_width, ones
    if isinstance(array, pa.StructArray):
        sizes, values = ones * _VALUE, ones
        for member in array.flatten():
            more_sizes, more_values = _sizes(member)
            sizes, values = sizes + more_sizes, values + more_values
        return sizes, values
    if isinstance(array, (pa.ListArray, pa.LargeListArray, pa.MapArray)):
        # Offsets count from the start of the values that slices share.
        offsets = array.offsets.to_numpy().astype(np.int64)
        inner = (
            array.values
            if not isinstance(array, pa.MapArray)
            else pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
        )
        first, last = int(offsets[0]), int(offsets[-1])
        of_sizes, of_values = _sizes(inner.slice(first, last - first))
        return _sums(of_sizes, offsets - first) + _VALUE, _sums(of_values, offsets - first) + 1
    if isinstance(array, pa.FixedSizeListArray):
        length = kind.list_size
        inner = array.values.slice(array.offset * length, len(array) * length)
        of_sizes, of_values = _sizes(inner)
        shape = (len(array), length)
        return of_sizes.reshape(shape).sum(axis=1) + _VALUE, of_values.reshape(shape).sum(axis=1) + 1
    return ones * _VALUE, ones


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _lengths(lengths: Any) -> _Counts:
    found: _Counts = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _sums(counts: _Counts, offsets: _Counts) -> _Counts:
    """Return the sum of the counts between each pair of offsets."""
    running = np.concatenate(([0], np.cumsum(counts)))
    found: _Counts = running[offsets[1:]] - running[offsets[:-1]]
    return found
