"""The interface of every tokenizer: ids, character spans, special tokens, files."""

import abc
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import atomic

VOCABULARY_FILES = {
    "wordpiece": "vocab.txt",
    "sentencepiece_unigram": "sentencepiece.model",
    "sentencepiece_bpe": "sentencepiece.model",
    "library": "library.json",
    "japanese": "japanese.json",
}
SETTINGS_FILE = "tokenizer.json"

# The first spelling is BERT's, and what training writes; the others are those of ALBERT, XLNet and
# RoBERTa style SentencePiece models.
SPECIAL_TOKENS = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<cls>", "<s>"),
    "sep": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}

Spans = NDArray[np.int32]
"""[n, 2]: where in a text the characters of each of its n tokens begin, and where they end."""


class Tokenizer(abc.ABC):
    """Token ids of one vocabulary.

    `content` are the bytes of the vocabulary file, and `oddities` sentences on what is odd about
    it. `kind` is the name in the configuration, `size` the number of pieces; `pad`, `unk`, `cls`,
    `sep` and `mask` are ids; `starts_word` is bool [size], true where a piece begins a
    word; `digest` is the SHA-256 of the vocabulary file and the settings.
    """

    oddities: list[str]

    def __init__(self, kind: str, lowercase: bool, content: bytes, pieces: list[str], where: str):
        self.kind = kind
        self.lowercase = lowercase
        self.size = len(pieces)
        self.digest = hashlib.sha256(_settings(kind, lowercase) + content).hexdigest()
        self.starts_word = self._starts_word(pieces)
        self.content = content
        self._pieces = pieces
        ids = _special_ids(pieces, where)
        self.pad, self.unk, self.cls, self.sep, self.mask = (ids[name] for name in SPECIAL_TOKENS)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of padding, unknown, classification, separator and mask, in this order."""
        return self.pad, self.unk, self.cls, self.sep, self.mask

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens around them."""

    @abc.abstractmethod
    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """Returns the same ids as `encode`, and the characters of the text that each stands for.

        Spans are int32 [n, 2], indices into the str as it was given, the end exclusive. Characters
        that the vocabulary's clean-up drops, as accents and spaces, lie in no span or inside one;
        a token that stands for nothing but space has an empty span.
        """

    @abc.abstractmethod
    def _encode_after_mask(self, text: str) -> list[int]:
        """Returns the ids of text that follows a mask token with nothing between them."""

    @abc.abstractmethod
    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        """Returns bool [size], true where a piece begins a word."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the vocabulary's spelling of each id."""
        return [self._pieces[i] for i in ids]

    def encode_with_mask(self, text: str) -> list[int]:
        """Returns the ids of a sentence in which `[MASK]`, or the vocabulary's own mask token,
        stands for the masked piece; raises InputError if the sentence has none."""
        spellings = {SPECIAL_TOKENS["mask"][0], self._pieces[self.mask]}
        first, *others = re.split("|".join(map(re.escape, sorted(spellings))), text)
        if not others:
            raise InputError(
                f"the sentence {text!r} has no mask; "
                f"write {' or '.join(sorted(spellings))} where a word is to be guessed"
            )
        ids = self.encode([first])[0]
        for part in others:
            ids.append(self.mask)
            spaced = part[:1].isspace()
            ids += self.encode([part])[0] if spaced else self._encode_after_mask(part)
        return ids

    def save(self, directory: Path) -> None:
        """Writes the vocabulary file and the settings into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(directory / VOCABULARY_FILES[self.kind], self.content)
        atomic.write_bytes(directory / SETTINGS_FILE, _settings(self.kind, self.lowercase))


def _settings(kind: str, lowercase: bool) -> bytes:
    settings: dict[str, Any] = {"kind": kind, "lowercase": lowercase}
    return json.dumps(settings, sort_keys=True).encode()


def _special_ids(pieces: list[str], where: str) -> dict[str, int]:
    index = {piece: i for i, piece in enumerate(pieces)}
    found = {
        name: next((index[s] for s in spellings if s in index), None)
        for name, spellings in SPECIAL_TOKENS.items()
    }
    missing = [" or ".join(SPECIAL_TOKENS[name]) for name, i in found.items() if i is None]
    if missing:
        raise InputError(f"{where}: the vocabulary has no special token {'; no '.join(missing)}")
    return {name: i for name, i in found.items() if i is not None}
