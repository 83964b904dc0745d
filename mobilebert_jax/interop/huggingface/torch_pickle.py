"""Tensors of a file that PyTorch pickled, read without PyTorch.

A pickle is a program for Python's unpickler, and can name any function to be called. Here it may
name nothing but what a `state_dict` is made of: dicts, the types of storages, and the functions
that make a tensor out of a storage, for which harmless ones stand in. Whatever else it names is
refused, and nothing of it is called.

Source: PyTorch's torch/serialization.py and torch/_utils.py: the zip files of 1.6 and later, and
the form before them, pickles one after the other with the storages behind them.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from mobilebert_jax.config.schema import InputError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_MOST_DIMENSIONS = 32  # NumPy has at most 64


class _StorageType(NamedTuple):
    """What stands for a class such as `torch.FloatStorage`."""

    dtype: np.dtype[Any]


_STORAGE_TYPES = {
    f"{name}Storage": _StorageType(np.dtype(dtype))
    for name, dtype in {
        "Double": np.float64,
        "Float": np.float32,
        "Half": np.float16,
        "BFloat16": ml_dtypes.bfloat16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    }.items()
}


class _Storage(NamedTuple):
    """Numbers that are elsewhere in the file, under `key`."""

    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    """How a tensor lies in a storage, in numbers of its type."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The file holds something else than tensors by name, or is damaged."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a `state_dict`; raises InputError, naming what is not one."""
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except _Refused as error:
        reason = str(error)
    # An unpickler that is led astray raises nearly anything.
    except Exception as error:
        reason = f"it is damaged or no such file ({type(error).__name__}: {error})".split("\n")[0]
    raise InputError(
        f"{path} cannot be read as tensors by name, as `torch.save(model.state_dict())` writes "
        f"them: {reason}"
    ) from None


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as file:
        entries = {entry.filename: entry for entry in file.infolist()}
        programs = [name for name in entries if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise _Refused(f"it has {len(programs)} entries data.pkl instead of one")
        folder = programs[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise _Refused("it is compressed, which PyTorch never does")
        order = f"{folder}byteorder"
        if order in entries and file.read(order) != b"little":
            raise _Refused("its numbers are big-endian")
        with file.open(programs[0]) as program:
            state = _state(_Unpickler(program).load())

        def numbers(storage: _Storage) -> bytes:
            name = f"{folder}data/{storage.key}"
            if name not in entries:
                raise _Refused(f"the storage {name} is missing")
            return file.read(name)

        return _arrays(state, numbers)


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if _Unpickler(file).load() != _LEGACY_MAGIC:
            raise _Refused("it does not begin as a file of PyTorch's")
        version, system = _Unpickler(file).load(), _Unpickler(file).load()
        if version != _LEGACY_VERSION or not isinstance(system, dict):
            raise _Refused(f"it is of version {version!r}; {_LEGACY_VERSION} is read")
        if system.get("little_endian") is not True:
            raise _Refused("its numbers are big-endian")
        unpickler = _Unpickler(file)
        state = _state(unpickler.load())
        keys = _Unpickler(file).load()
        if not isinstance(keys, list) or set(keys) != set(unpickler.storages):
            raise _Refused("its storages are not those that its tensors name")
        found = {}
        for key in keys:
            storage = unpickler.storages[key]
            if int.from_bytes(file.read(8), "little") != storage.size:
                raise _Refused(f"the storage {key} has another size than its tensors say")
            found[key] = file.read(storage.size * storage.dtype.itemsize)
        return _arrays(state, lambda storage: found[storage.key])


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, which finds nothing but the stand-ins."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a name in the file."""
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        if (module, name) not in _STAND_INS:
            raise _Refused(f"it names {module}.{name}, which is not part of a tensor")
        return _STAND_INS[module, name]

    def persistent_load(self, saved: Any) -> _Storage:
        """Returns the storage that a tensor names."""
        match saved:
            case ("storage", _StorageType(dtype), str(key), str(), int(size), *views):
                if size < 0 or any(view is not None for view in views):
                    raise _Refused(f"the storage {key} is a view of another, or has a size below 0")
                found = self.storages.setdefault(key, _Storage(key, dtype, size))
                if found != (key, dtype, size):
                    raise _Refused(f"the storage {key} has two types or sizes")
                return found
        raise _Refused("it names a storage in an unknown way")


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *others: Any
) -> _Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`; the others are about gradients."""
    numbers = [offset, *shape, *strides]
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or len(shape) > _MOST_DIMENSIONS
        or not all(type(number) is int and number >= 0 for number in numbers)
    ):
        raise _Refused("a tensor has an impossible shape")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *others: Any) -> _Tensor:
    """Stands for `torch._utils._rebuild_parameter`."""
    if not isinstance(tensor, _Tensor):
        raise _Refused("a parameter is no tensor")
    return tensor


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _state(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise _Refused(f"it holds a {type(state).__name__}, not a dict")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            kind = "a tensor" if isinstance(value, _Tensor) else f"a {type(value).__name__}"
            raise _Refused(f"its entry {name!r} is {kind}; only tensors by name are read")
        if not name.isascii():
            raise _Refused(f"the name {name!r} of a tensor is none that PyTorch gives")
    return state


def _arrays(
    state: Mapping[str, _Tensor], numbers: Callable[[_Storage], bytes]
) -> dict[str, np.ndarray]:
    read_already: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.key not in read_already:
            content = numbers(storage)
            if len(content) != storage.size * storage.dtype.itemsize:
                raise _Refused(f"the storage of {name} is cut off")
            read_already[storage.key] = np.frombuffer(content, storage.dtype)
        last = tensor.offset + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if math.prod(tensor.shape) and last >= storage.size:
            raise _Refused(f"the tensor {name} reaches beyond its storage")
        arrays[name] = _array(read_already[storage.key], tensor)
    return arrays


def _array(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, storage.dtype)
    # An expanded tensor repeats its numbers without room for them, up to any size.
    if math.prod(tensor.shape) > max(storage.size, 1):
        raise _Refused(f"a tensor of shape {tensor.shape} has more numbers than its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], tensor.shape, strides, writeable=False
    )
    return np.array(view)
