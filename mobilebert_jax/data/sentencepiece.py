"""SentencePiece tokenizers, unigram and BPE."""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_pb2

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tokenizer_base import Spans, Tokenizer

# Protocol buffers merge when joined: this one says only normalizer_spec.add_dummy_prefix = false.
_WITHOUT_PREFIX = b"\x1a\x02\x18\x00"

# Generated code makes its classes at import, where no type checker sees them.
_SentencePieceText: Any = vars(sentencepiece_pb2)["SentencePieceText"]


class SentencePiece(Tokenizer):
    """A SentencePiece unigram or BPE model.

    Scripts that put no space between words have no word starts but those after punctuation.
    """

    def __init__(self, content: bytes, kind: str, lowercase: bool, where: str):
        self._processor = _load_model(content, where)
        numbers = range(self._processor.get_piece_size())
        try:
            pieces = [self._processor.id_to_piece(i) for i in numbers]
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: a piece is not UTF-8 ({error})") from None
        super().__init__(kind, lowercase, content, pieces, where)
        self.oddities = []
        self._unprefixed = _load_model(content + _WITHOUT_PREFIX, where)
        # Models trained elsewhere may declare their mask a user symbol, which text can then spell.
        spelled = self._processor.encode([pieces[i] for i in self.special_ids], num_threads=1)
        self._forgeable = (set(itertools.chain(*spelled)) & set(self.special_ids)) - {self.unk}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens around them."""
        encoded = self._processor.encode(list(texts), num_threads=1)
        return [self._without_forged(ids) for ids in encoded]

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """Returns the same ids as `encode`, and int32 [n, 2] character spans in each text."""
        found: list[tuple[list[int], Spans]] = []
        for text in texts:
            message = self._processor.encode(text, out_type="serialized_proto")
            pieces = _SentencePieceText.FromString(message).pieces
            bounds = np.array([(p.begin, p.end) for p in pieces], np.int32).reshape(-1, 2)
            spans = _trimmed(text, bounds if text.isascii() else _characters(text, bounds))
            _share_characters(spans, [p.piece.strip("▁") == "" for p in pieces])
            found.append((self._without_forged([p.id for p in pieces]), spans))
        return found

    def _without_forged(self, ids: list[int]) -> list[int]:
        if not self._forgeable:
            return ids
        return [self.unk if i in self._forgeable else i for i in ids]

    def _encode_after_mask(self, text: str) -> list[int]:
        return self._unprefixed.encode(text)

    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        return np.array([p[0] == "▁" or unicodedata.category(p[0])[0] in "PS" for p in pieces])


def _load_model(content: bytes, where: str) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise InputError(f"{where}: not a SentencePiece model ({error})") from None


def _characters(text: str, bounds: Spans) -> Spans:
    """Returns bounds counted in characters; `bounds` [n, 2] count bytes of UTF-8."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    lengths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.searchsorted(np.cumsum(lengths), bounds, side="right").astype(np.int32)


def _trimmed(text: str, spans: Spans) -> Spans:
    """Returns `spans` [n, 2] without the space at their ends: a piece covers the space before it,
    and where several are shortened to one, all of them."""
    ink = np.array([not character.isspace() for character in text], bool)
    index = np.arange(len(text), dtype=np.int32)
    last = np.array([len(text)], np.int32)
    following = np.append(np.where(ink, index, last), last)
    following = np.minimum.accumulate(following[::-1])[::-1]
    preceding = np.maximum.accumulate(np.append(np.int32(0), np.where(ink, index + 1, 0)))
    begin = np.minimum(following[spans[:, 0]], spans[:, 1])
    return np.stack([begin, np.maximum(preceding[spans[:, 1]], begin)], axis=1).astype(np.int32)


def _share_characters(spans: Spans, blank: Sequence[bool]) -> None:
    """Gives every piece of one character that character, as of a ligature that is spelled out or
    of a character's bytes; the library gives it to the last of them, and nothing to the others."""
    for i in np.flatnonzero(spans[:-1, 0] == spans[:-1, 1])[::-1]:
        if not blank[i] and spans[i + 1, 0] == spans[i, 0]:
            spans[i, 1] = spans[i + 1, 1]
