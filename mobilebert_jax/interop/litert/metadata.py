"""Metadata of a LiteRT file: what its inputs and outputs are, and the files that go with them.

Apps look for it under the name `TFLITE_METADATA`; vocabulary and labels lie behind the model, as a
zip archive. Source: `metadata_schema.fbs` of MediaPipe, version 1.5.0. Only packages of hundreds of
megabytes have that schema's classes, so the few tables of it that are used stand here.
"""

import io
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

from mobilebert_jax.interop import verification
from mobilebert_jax.interop.forward import PROBABILITIES
from mobilebert_jax.interop.litert.graph import Graph

NAME = "TFLITE_METADATA"
VOCABULARY = "vocab.txt"
LABELS = "labels.txt"

_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.1.0"
"""The first that knows BERT's tokenizer, and so the least that a reader must have."""

_FIELDS = {
    "AssociatedFile": ("name", "description", "type", "locale", "version"),
    "BertTokenizerOptions": ("vocab_file",),
    "ProcessUnit": ("options_type", "options"),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "SubGraphMetadata": (
        "name",
        "description",
        "input_tensor_metadata",
        "output_tensor_metadata",
        "associated_files",
        "input_process_units",
    ),
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
}
"""Fields of each table in the order of the schema; a union takes two, of which the first says what
it is."""
_LABEL_FILE, _VOCABULARY_FILE = 2, 5  # of AssociatedFileType
_BERT_TOKENIZER = 4  # of ProcessUnitOptions

_INPUTS = {"input_ids": "ids", "input_mask": "mask", "segment_ids": "segment_ids"}
"""What apps call the inputs."""
_OF_CLASSES = (PROBABILITIES, "logits")
"""Outputs whose numbers belong to labels."""


class _Table(NamedTuple):
    """A table of the schema; values are texts, numbers of an enumeration, tables, and lists of
    tables."""

    kind: str
    values: Mapping[str, Any]


def added(content: bytes, description: str, vocabulary: bytes, labels: tuple[str, ...]) -> bytes:
    """Returns a `.tflite` file with metadata, vocabulary and, of classes, labels.

    Args:
      content: the file.
      description: of the network, a sentence.
      vocabulary: `vocab.txt` of BERT's lower-casing tokenizer.
      labels: of the classes in the order of the outputs; empty where there are none.
    """
    graph = Graph(content)
    table = _model(graph, description, bool(labels))
    builder = verification.package("flatbuffers").Builder(1024)
    builder.Finish(_pack(builder, table), _IDENTIFIER)
    graph.add_metadata(NAME, bytes(builder.Output()))
    files = {VOCABULARY: vocabulary}
    if labels:
        files[LABELS] = "".join(f"{label}\n" for label in labels).encode()
    return _with_files(graph.content(), files)


def _model(graph: Graph, description: str, labelled: bool) -> _Table:
    vocabulary = _Table("AssociatedFile", {"name": VOCABULARY, "type": _VOCABULARY_FILE})
    options = _Table("BertTokenizerOptions", {"vocab_file": [vocabulary]})
    tokenizer = _Table("ProcessUnit", {"options_type": _BERT_TOKENIZER, "options": options})
    subgraph = _Table(
        "SubGraphMetadata",
        {
            "input_tensor_metadata": [_tensor(_INPUTS[name]) for name in graph.inputs],
            "output_tensor_metadata": [
                _tensor(name, labelled=labelled and name in _OF_CLASSES) for name in graph.outputs
            ],
            "input_process_units": [tokenizer],
        },
    )
    return _Table(
        "ModelMetadata",
        {
            "description": description,
            "subgraph_metadata": [subgraph],
            "min_parser_version": _PARSER_VERSION,
        },
    )


def _tensor(name: str, *, labelled: bool = False) -> _Table:
    values: dict[str, Any] = {"name": name}
    if labelled:
        labels = _Table("AssociatedFile", {"name": LABELS, "type": _LABEL_FILE})
        values["associated_files"] = [labels]
    return _Table("TensorMetadata", values)


def _pack(builder: Any, table: _Table) -> int:
    """Writes a table behind all that it refers to; returns where it stands."""
    fields = _FIELDS[table.kind]
    numbers = {name: value for name, value in table.values.items() if isinstance(value, int)}
    places = {
        name: _referred(builder, value)
        for name, value in table.values.items()
        if name not in numbers
    }
    builder.StartObject(len(fields))
    for name, place in places.items():
        builder.PrependUOffsetTRelativeSlot(fields.index(name), place, 0)
    for name, number in numbers.items():
        builder.PrependUint8Slot(fields.index(name), number, 0)
    found: int = builder.EndObject()
    return found


def _referred(builder: Any, value: str | _Table | list[_Table]) -> int:
    """Writes a text, a table or a list of tables; returns where it stands."""
    if isinstance(value, _Table):
        return _pack(builder, value)
    found: int
    if isinstance(value, str):
        found = builder.CreateString(value)
        return found
    places = [_pack(builder, item) for item in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    found = builder.EndVector()
    return found


def _with_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns a file with others behind it, uncompressed, since apps read them where they lie."""
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            # Of a fixed date, so that the same network gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name), data)
    return whole.getvalue()
