"""Edits of a LiteRT graph that neither the converter nor the quantiser can be asked for."""

import collections
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mobilebert_jax.interop import verification

_IDENTIFIER = b"TFL3"
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_ALIGNMENT = 16
"""Bytes, of constants: what LiteRT's schema demands, and its kernels for vectors rely on."""


class Graph:
    """The one graph of a file, by the schema's own objects."""

    def __init__(self, content: bytes):
        """Reads the bytes of a `.tflite` file."""
        self._schema = verification.package("ai_edge_litert.schema_py_generated")
        self._model = self._schema.ModelT.InitFromPackedBuf(content, 0)
        self._take_in(content)
        self._graph = self._model.subgraphs[0]
        self._names = {
            value: name
            for name, value in vars(self._schema.BuiltinOperator).items()
            if isinstance(value, int)
        }

    def content(self) -> bytes:
        """Returns the bytes of a file with this graph."""
        builder = _aligned_builder()
        builder.Finish(self._model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def add_metadata(self, name: str, content: bytes) -> None:
        """Keeps bytes under a name that readers of the file look for."""
        buffer = self._schema.BufferT(data=np.frombuffer(content, np.uint8))
        self._model.buffers.append(buffer)
        entry = self._schema.MetadataT(name=name, buffer=len(self._model.buffers) - 1)
        self._model.metadata = [*(self._model.metadata or []), entry]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs in the signature, in the order in which the graph has them."""
        return self._signature_names(self._graph.inputs, self._model.signatureDefs[0].inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs in the signature, in the order in which the graph has them."""
        return self._signature_names(self._graph.outputs, self._model.signatureDefs[0].outputs)

    def flatten_biases(self) -> None:
        """Gives biases of dense layers one axis.

        The converter folds NoNorm's scale and shift into the layer before it, with axes of size 1
        in front; the quantiser would take the first of them for the one that has scales.
        """
        for operation, name in self._operations():
            if name == "FULLY_CONNECTED" and operation.inputs[2] >= 0:
                bias = self._graph.tensors[operation.inputs[2]]
                bias.shape = np.array([np.prod(bias.shape)], np.int32)

    def drop_minima(self) -> list[str]:
        """Takes MINIMUM, which the quantiser has no 8-bit form of, out; returns what it read.

        The upper bound of a tensor in 8 bits is that of its range anyway.
        """
        replaced = {}
        for operation, name in self._operations():
            if name == "MINIMUM":
                read = next(i for i in operation.inputs if not self._is_constant(i))
                replaced[operation.outputs[0]] = read
        self._graph.operators = [
            operation for operation, name in self._operations() if name != "MINIMUM"
        ]
        for operation in self._graph.operators:
            operation.inputs = np.array([replaced.get(i, i) for i in operation.inputs], np.int32)
        found = [self._graph.tensors[index].name.decode() for index in replaced.values()]
        self._drop_unused_tensors()
        return found

    def name_outputs(self) -> None:
        """Makes the float32 tensors of the signature's outputs the graph's, and the other way.

        The quantiser leaves one of the two at an 8-bit tensor: the signature where not the output
        alone reads what that is turned back into, the graph where an operation reads what an output
        was turned into.
        """
        (signature,) = self._model.signatureDefs
        outputs = []
        for entry, index in zip(signature.outputs, self._graph.outputs, strict=True):
            is_float = self._graph.tensors[index].type == self._schema.TensorType.FLOAT32
            entry.tensorIndex = index if is_float else entry.tensorIndex
            outputs.append(entry.tensorIndex)
        self._graph.outputs = np.array(outputs, np.int32)

    def operations(self) -> list[tuple[str, str]]:
        """Returns kind and name of every operation, as `ai_edge_quantizer` calls it."""
        tensors = self._graph.tensors
        return [
            (kind, "".join(f"{tensors[i].name.decode()};" for i in operation.outputs))
            for operation, kind in self._operations()
        ]

    def float_operations(self) -> dict[str, int]:
        """Returns how often each operation computes in float32, conversions left out."""
        found: collections.Counter[str] = collections.Counter()
        for operation, name in self._operations():
            types = {self._graph.tensors[i].type for i in operation.outputs}
            if name not in _CONVERSIONS and self._schema.TensorType.FLOAT32 in types:
                found[name] += 1
        return dict(sorted(found.items()))

    def _take_in(self, content: bytes) -> None:
        """Puts buffers that lie behind the flatbuffer into it.

        The quantiser keeps them there from 256 KiB on, at offsets from the beginning of the file:
        whatever makes the flatbuffer longer, as metadata does, would leave them pointing elsewhere
        ("out of range offset").
        """
        for buffer in self._model.buffers:
            if buffer.offset > 1:
                data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.data, buffer.offset, buffer.size = data, 0, 0

    def _signature_names(self, indices: Iterable[int], entries: Iterable[Any]) -> list[str]:
        names = {entry.tensorIndex: entry.name.decode() for entry in entries}
        return [names[index] for index in indices]

    def _operations(self) -> Iterator[tuple[Any, str]]:
        for operation in self._graph.operators:
            code = self._model.operatorCodes[operation.opcodeIndex]
            yield operation, self._names[code.builtinCode]

    def _is_constant(self, index: int) -> bool:
        data = self._model.buffers[self._graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _drop_unused_tensors(self) -> None:
        """Renumbers the tensors: calibration reads all of them, and would find these empty."""
        holders = [*self._graph.operators, self._graph]
        used = {i for holder in holders for i in (*holder.inputs, *holder.outputs) if i >= 0}
        numbers = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
        self._graph.tensors = [self._graph.tensors[index] for index in sorted(used)]
        for holder in holders:
            holder.inputs = np.array([numbers[i] for i in holder.inputs], np.int32)
            holder.outputs = np.array([numbers[i] for i in holder.outputs], np.int32)
        for signature in self._model.signatureDefs:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = numbers[entry.tensorIndex]


def _aligned_builder() -> Any:
    """Returns a builder of flatbuffers that aligns arrays of bytes, as the schema demands and the
    library, which goes by the type of an element alone, does not."""
    flatbuffers = verification.package("flatbuffers")

    class Builder(flatbuffers.Builder):  # type: ignore[name-defined]
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype == np.uint8:
                self.Prep(_ALIGNMENT, x.size)
            found: int = super().CreateNumpyVector(x)
            return found

    return Builder(1 << 20)
