"""The files of a prepared source: a TFDS dataset of tokenised documents in ArrayRecord shards.

A record has two features, both int32 vectors: `tokens` [T] without special tokens, and
`sentence_lengths` [N], which sum to T. Any TFDS user can read the folder of a source with
`tfds.builder_from_directory(folder).as_data_source("train")`. `token_counts-<split>.npy` beside the
shards holds T of every record, so that opening a dataset does not read it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.proto import tf_example_pb2

from mobilebert_jax.config.schema import InputError

SPLITS = ("train", "held_out")
NAME = "documents"
_VERSION = "1.0.0"
_BYTE_ORDER_INT32 = np.dtype("<i4")


def features() -> tfds.features.FeaturesDict:
    """Returns the features of a record.

    Stored as bytes the vectors are written three times and read seven times as fast as as a list of
    integers; ArrayRecord's compression makes up for the size.
    """
    return tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes")
            for name in ("tokens", "sentence_lengths")
        }
    )


class Serializer:
    """Turns a document into the bytes of a record."""

    def __init__(self) -> None:
        self._features = features()
        self._serializer = example_serializer.ExampleSerializer(
            self._features.get_serialized_info()
        )

    def __call__(self, tokens: list[int], sentence_lengths: list[int]) -> bytes:
        """Returns the record of one document, or of a part of one."""
        example = {
            "tokens": np.array(tokens, _BYTE_ORDER_INT32),
            "sentence_lengths": np.array(sentence_lengths, _BYTE_ORDER_INT32),
        }
        message = self._serializer.get_tf_example(self._features.encode_example(example))
        # Left to itself protobuf writes a map in an order that differs between processes.
        return message.SerializeToString(deterministic=True)


class Documents:
    """The tokenised documents of one source and split, by index; opened on first use, picklable.

    `weight` is the source's share of the mix, `token_counts` int64 [len] the tokens of each record,
    `document_numbers` int64 [len] the document it is, or is a part of, in increasing order.
    """

    def __init__(self, folder: Path, split: str, weight: float):
        self.weight = weight
        self._folder = folder
        self._split = split
        self._open()

    def _open(self) -> None:
        counted: NDArray[np.int64] = np.load(counts_path(self._folder, self._split))
        self.token_counts = counted[:, 0]
        self.document_numbers = np.cumsum(1 - counted[:, 1])
        self._records: ArrayRecordDataSource | None = None

    def __len__(self) -> int:
        return len(self.token_counts)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if self._records is None:
            self._records = ArrayRecordDataSource(
                sorted(str(p) for p in self._folder.glob(f"{NAME}-{self._split}.array_record-*"))
            )
        try:
            example = tf_example_pb2.Example.FromString(self._records[int(index)])
        except (RuntimeError, ValueError, IndexError, OSError, DecodeError) as error:
            raise InputError(
                f"{self._folder}: record {index} of {self._split} cannot be read: {error}; the "
                "file is damaged: remove the folder of the stage prepare to make it again"
            ) from error
        feature = example.features.feature
        return _vector(feature["tokens"]), _vector(feature["sentence_lengths"])

    def __getstate__(self) -> dict[str, Any]:
        return {"weight": self.weight, "_folder": self._folder, "_split": self._split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def shard_path(folder: Path, split: str, index: int, total: int) -> Path:
    """Returns where shard `index` of `total` of a split lies."""
    return folder / f"{NAME}-{split}.array_record-{index:05d}-of-{total:05d}"


def counts_path(folder: Path, split: str) -> Path:
    """Returns where int64 [records, 2] lies: tokens, and 1 for a record that continues the last."""
    return folder / f"token_counts-{split}.npy"


def write_metadata(
    folder: Path, label: str, shard_lengths: dict[str, list[int]], num_bytes: dict[str, int]
) -> None:
    """Writes what TFDS needs to open `folder`: records of each shard and bytes of each split."""
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(),
        version=_VERSION,
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes[split])
            for split, lengths in shard_lengths.items()
        ],
        check_data=False,  # reading an example of ArrayRecord that way needs TensorFlow
        description=f"Tokenised documents of {label}.",
        disable_shuffling=True,
    )


def _vector(feature: Any) -> NDArray[np.int32]:
    return np.frombuffer(feature.bytes_list.value[0], _BYTE_ORDER_INT32)
