"""Writes `pytorch_model.bin` in both of PyTorch's forms, without PyTorch.

Classes and functions of the names that a file holds stand in `sys.modules` while it is written.
"""

import collections
import io
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Storage:
    """Numbers that a pickler writes by their key alone."""

    def __init__(self, key: str, array: np.ndarray):
        self.key = key
        self.array = array


class Tensor:
    """A view of a storage, pickled as a call of PyTorch's."""

    def __init__(
        self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ):
        self.parts = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


class Parameter:
    """A tensor that is trained."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = sys.modules["torch._utils"]._rebuild_parameter
        return rebuild, (self.tensor, True, collections.OrderedDict())


class Call:
    """A call of any function that the pickle names, as an attacker would write it."""

    def __init__(self, function: Any, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns each array as a tensor with a storage of its own."""
    found = {}
    for number, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        found[name] = Tensor(Storage(str(number), array), array.shape, strides)
    return found


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, legacy: bool):
        super().__init__(file, protocol=2)
        self.legacy = legacy
        self.storages: dict[str, Storage] = {}

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Storage):
            return None
        self.storages[thing.key] = thing
        kind = getattr(sys.modules["torch"], f"{NAMES[str(thing.array.dtype)]}Storage")
        saved = ("storage", kind, thing.key, "cpu", thing.array.size)
        return (*saved, None) if self.legacy else saved


@contextmanager
def _names() -> Iterator[None]:
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in NAMES.values():
        kind = type(f"{name}Storage", (), {"__module__": "torch"})
        setattr(torch, f"{name}Storage", kind)
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write_zip(path: Path, state: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """Writes the form of PyTorch 1.6 and later."""
    program = io.BytesIO()
    with _names():
        pickler = _Pickler(program, legacy=False)
        pickler.dump(state)
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", program.getvalue())
        file.writestr("archive/byteorder", b"little")
        for key, storage in pickler.storages.items():
            file.writestr(f"archive/data/{key}", storage.array.ravel("K").tobytes())
        file.writestr("archive/version", b"3\n")


def write_legacy(path: Path, state: Any) -> None:
    """Writes the form before."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 4}}
    with path.open("wb") as file, _names():
        for head in (LEGACY_MAGIC, 1001, system):
            pickle.dump(head, file, protocol=2)
        pickler = _Pickler(file, legacy=True)
        pickler.dump(state)
        pickle.dump(sorted(pickler.storages), file, protocol=2)
        for key in sorted(pickler.storages):
            array = pickler.storages[key].array
            file.write(array.size.to_bytes(8, "little"))
            file.write(array.ravel("K").tobytes())
