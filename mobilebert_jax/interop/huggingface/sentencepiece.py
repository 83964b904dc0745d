"""SentencePiece models for the library `tokenizers`, which `transformers` runs.

The fields are read from the file's protocol buffer by their numbers: the classes generated for them
ask for a newer protobuf than the one this project runs on.

Source: sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import tokenizers
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from mobilebert_jax.config.schema import InputError

_KINDS = {1: "sentencepiece_unigram", 2: "sentencepiece_bpe"}
_NORMAL, _SPACE = 1, "▁"
_FOUR_BYTES = 5
"""The wire type of a float."""


class Piece(NamedTuple):
    """One piece of the vocabulary; `type` 1 is one that text can spell."""

    text: str
    score: float
    type: int


class SentencePieceModel(NamedTuple):
    """The parts of a model file on which the split of a text depends."""

    pieces: tuple[Piece, ...]
    kind: str
    """Its name in the configuration, empty for the kinds that are not there."""
    lowercase: bool
    characters: bytes
    """The compiled map of characters."""
    usual: bool
    """Spaces are treated by the trainer's defaults, and characters not split into bytes."""


def parse(content: bytes, where: str) -> SentencePieceModel:
    """Returns the parts of a model file; raises InputError if it is not one of unigrams or BPE."""
    try:
        model = _parse(content)
    except (DecodeError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{where}: not a whole SentencePiece model; copy it again") from None
    if not model.kind:
        raise InputError(f"{where}: must be a unigram or BPE model, not one of words or characters")
    return model


def _parse(content: bytes) -> SentencePieceModel:
    pieces = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(content):
        if number == 1:
            fields = dict(_fields(value))
            pieces.append(Piece(fields[1].decode(), fields.get(2, 0.0), fields.get(3, _NORMAL)))
        elif number == 2:
            trainer.update(_fields(value))
        elif number == 3:
            normalizer.update(_fields(value))
    # Suffix spaces and bytes default to off, the three rules of spaces to on.
    usual = not (trainer.get(24, 0) or trainer.get(35, 0))
    usual = usual and all(normalizer.get(number, 1) for number in (3, 4, 5))
    return SentencePieceModel(
        pieces=tuple(pieces),
        kind=_KINDS.get(trainer.get(3, 1), ""),
        lowercase=normalizer.get(1, b"").endswith(b"_cf"),
        characters=normalizer.get(2, b""),
        usual=usual,
    )


def library(model: SentencePieceModel, unk: int) -> tokenizers.Tokenizer | None:
    """Returns a tokenizer that splits as the model does, None where the library has no equal.

    Of splits that fit equally well, which a unigram model meets in a few lines of 10,000, it may
    take another. `unk` is the id of unknown characters. Raises InputError for rules of
    normalisation that are damaged.
    """
    if not model.usual or not model.characters:
        return None
    if model.kind == "sentencepiece_unigram":
        scores = [(piece.text, piece.score) for piece in model.pieces]
        found = tokenizers.Tokenizer(models.Unigram(scores, unk_id=unk, byte_fallback=False))
    else:
        ids = {piece.text: i for i, piece in enumerate(model.pieces)}
        found = tokenizers.Tokenizer(
            models.BPE(ids, _merges(model, ids), unk_token=model.pieces[unk].text, fuse_unk=True)
        )
    try:
        characters = normalizers.Precompiled(model.characters)
    except Exception as error:
        raise InputError(f"a SentencePiece model is damaged: {error}") from None
    found.normalizer = normalizers.Sequence(
        [
            characters,
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), _SPACE),
        ]
    )
    found.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    found.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    return found


def _merges(model: SentencePieceModel, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Returns every pair of pieces that make a third, in the order in which they were learnt."""
    found: list[tuple[str, str]] = []
    for piece in model.pieces:
        if piece.type == _NORMAL:
            cuts = [(piece.text[:i], piece.text[i:]) for i in range(1, len(piece.text))]
            pairs = [pair for pair in cuts if pair[0] in ids and pair[1] in ids]
            found += sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return found


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the number and value of each field: int, bytes, or float for those of four bytes."""
    # To a message without fields of its own all are unknown, and it keeps them in their order.
    for field in UnknownFieldSet(Empty.FromString(message)):
        value = field.data
        if field.wire_type == _FOUR_BYTES:
            value = struct.unpack("<f", struct.pack("<I", value))[0]
        yield field.field_number, value
