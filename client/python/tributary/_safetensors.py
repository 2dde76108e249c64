# SPDX-License-Identifier: Apache-2.0
"""Reading and writing safetensors without copying tensor data. Reading is strict: whatever is not
certain is refused (the same rules as the service's own reader)."""
import json
import re
import struct
from typing import NamedTuple

try:
    import numpy
except ImportError:  # numpy is optional
    numpy = None

HEADER_MAX = 1 << 20
DIMS_MAX = 8
# Largest items first: the order the reference writer puts tensors in (then by name), so that
# everything stays aligned.
SIZES = {"U64": 8, "I64": 8, "F64": 8, "F32": 4, "U32": 4, "I32": 4, "BF16": 2, "F16": 2, "U16": 2,
         "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ORDER = {dtype: index for index, dtype in enumerate(SIZES)}
_NUMPY = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4",
          "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
_FROM_NUMPY = {name: dtype for dtype, name in _NUMPY.items()}
_NAME = re.compile(r'[ !#-\[\]-~]{1,256}\Z')  # printable ASCII that needs no escape


class SafetensorsError(ValueError):
    """Not a valid safetensors file, or a tensor that cannot be put into one."""


class Tensor(NamedTuple):
    """A tensor without numpy: dtype is a safetensors name ("F32"), shape counts elements, data is a
    contiguous little-endian buffer of bytes."""
    dtype: str
    shape: tuple
    data: memoryview


def _as_tensor(name, value):
    if isinstance(value, tuple):
        dtype, shape, data = value
        value = Tensor(dtype, tuple(int(n) for n in shape), memoryview(data).cast("B"))
    else:
        if hasattr(value, "detach"):  # torch, without importing it
            value = value.detach().cpu().numpy()
        if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
            raise SafetensorsError(f"tensor {name!r}: not an array nor a (dtype, shape, bytes)")
        value = numpy.asarray(value)
        if value.dtype.byteorder == ">":
            value = value.astype(value.dtype.newbyteorder("<"))
        dtype = _FROM_NUMPY.get(value.dtype.str)
        if dtype is None:
            raise SafetensorsError(f"tensor {name!r}: no safetensors dtype for {value.dtype}")
        shape = value.shape
        flat = numpy.ascontiguousarray(value).reshape(-1).view("u1")
        value = Tensor(dtype, tuple(shape), memoryview(flat))
    count = 1
    for n in value.shape:
        if n < 0:
            raise SafetensorsError(f"tensor {name!r}: negative dimension")
        count *= n
    if value.dtype not in SIZES or len(value.shape) > DIMS_MAX or \
            count * SIZES[value.dtype] != value.data.nbytes:
        raise SafetensorsError(f"tensor {name!r}: dtype, shape and size do not fit together")
    return value


def dump(tensors):
    """{name: array} -> list of buffers which, one after the other, are a safetensors file.

    Arrays are numpy arrays, torch tensors or `Tensor` triples; contiguous ones are not copied (the
    list refers to their memory: do not change them until it is sent). Raises SafetensorsError."""
    entries = []
    for name, value in tensors.items():
        if not _NAME.match(name) or name == "__metadata__":
            raise SafetensorsError(f"bad tensor name {name!r}")
        entries.append((name, _as_tensor(name, value)))
    entries.sort(key=lambda e: (_ORDER[e[1].dtype], e[0]))
    header, end = {}, 0
    for name, t in entries:
        header[name] = {"dtype": t.dtype, "shape": list(t.shape),
                        "data_offsets": [end, end + t.data.nbytes]}
        end += t.data.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_MAX:
        raise SafetensorsError("header larger than 1 MiB")
    return [struct.pack("<Q", len(text)) + text] + [t.data for _, t in entries]


def _no_duplicates(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise SafetensorsError("duplicate key in the header")
    return result


def _check_entry(name, entry):
    if not _NAME.match(name):
        raise SafetensorsError("bad tensor name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise SafetensorsError(f"tensor {name!r}: members are not dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
    if not isinstance(dtype, str) or dtype not in SIZES or \
            any(type(n) is not int or n < 0 for n in numbers) or \
            len(shape) > DIMS_MAX or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise SafetensorsError(f"tensor {name!r}: bad dtype, shape or offsets")
    size = SIZES[dtype]
    for n in shape:
        size *= n
    if size != offsets[1] - offsets[0]:
        raise SafetensorsError(f"tensor {name!r}: shape and offsets disagree")
    return offsets


def load(buffer):
    """A whole safetensors file -> {name: Tensor} in file order; data are views into `buffer`.
    Raises SafetensorsError."""
    view = memoryview(buffer).cast("B")
    if view.nbytes < 10:
        raise SafetensorsError("too short")
    (size,) = struct.unpack("<Q", view[:8])
    if not 2 <= size <= HEADER_MAX or 8 + size > view.nbytes or view[8] != ord("{"):
        raise SafetensorsError("bad header length")
    try:
        text = bytes(view[8:8 + size]).decode("ascii").rstrip(" ")
        if not text.endswith("}"):
            raise SafetensorsError("header is not an object padded with blanks")
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (UnicodeDecodeError, RecursionError, json.JSONDecodeError) as e:
        raise SafetensorsError(f"header: {e}") from None
    if not isinstance(header, dict):
        raise SafetensorsError("header is not an object")
    header.pop("__metadata__", None)
    data = view[8 + size:]
    entries = sorted(((_check_entry(n, e), n, e) for n, e in header.items()),
                     key=lambda e: (e[0], e[1]))
    result, end = {}, 0
    for (begin, stop), name, entry in entries:
        if begin != end or stop > data.nbytes:
            raise SafetensorsError(f"tensor {name!r}: hole, overlap or past the end")
        result[name] = Tensor(entry["dtype"], tuple(entry["shape"]), data[begin:stop])
        end = stop
    if end != data.nbytes:
        raise SafetensorsError("bytes left after the last tensor")
    return result


def to_array(tensor):
    """Tensor -> numpy array of the same shape, sharing its memory (read-only when the buffer is).
    BF16 becomes a new float32 array. Without numpy: the tensor itself."""
    if numpy is None:
        return tensor
    if tensor.dtype == "BF16":
        wide = numpy.frombuffer(tensor.data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(tensor.shape)
    return numpy.frombuffer(tensor.data, _NUMPY[tensor.dtype]).reshape(tensor.shape)
