"""BERT for Japanese: MeCab finds the words, WordPiece or single characters are their pieces.

Source: `BertJapaneseTokenizer` of `transformers`, whose ids these are. Characters that Unicode's
NFKC turns into others keep their place in the text, so that spans are those of the text as it was.
"""

import importlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data.tokenizer_base import Spans, Tokenizer

DICTIONARIES = ("unidic_lite", "ipadic", "unidic")
"""Packages that hold a dictionary of MeCab's."""
SUBWORDS = ("wordpiece", "character")
_LONGEST_WORD = 100  # characters; of longer ones `transformers` makes the unknown token


class Settings(NamedTuple):
    """How words and pieces are made."""

    vocab: tuple[str, ...]
    dictionary: str = "unidic_lite"
    subwords: str = "wordpiece"
    lowercase: bool = False
    normalize: bool = True
    """Whether text is brought to NFKC first."""

    def content(self) -> bytes:
        """Returns what `JapaneseTokenizer` is made of."""
        return json.dumps(self._asdict(), ensure_ascii=False).encode()


class JapaneseTokenizer(Tokenizer):
    """Words of MeCab's, and their pieces; `content` are the bytes of `Settings.content`."""

    def __init__(self, content: bytes, where: str):
        settings = _parsed(content, where)
        super().__init__("japanese", settings.lowercase, content, list(settings.vocab), where)
        self.oddities = []
        self.settings = settings
        self._where = where
        vocab = {piece: number for number, piece in enumerate(settings.vocab)}
        unk = self._pieces[self.unk]
        words = _Words(_tagger(settings, where), settings.subwords == "character")
        if settings.subwords == "character":
            model: Any = models.WordLevel(vocab, unk_token=unk)
        else:
            model = models.WordPiece(vocab, unk_token=unk, max_input_chars_per_word=_LONGEST_WORD)
        self._library = tokenizers.Tokenizer(model)
        parts: list[Any] = [normalizers.NFKC()] if settings.normalize else []
        parts += [normalizers.Lowercase()] if settings.lowercase else []
        self._library.normalizer = normalizers.Sequence(parts)
        self._library.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(words)

    def __reduce__(self) -> tuple[Any, ...]:
        """MeCab cannot be sent to another process; it is made there anew."""
        return JapaneseTokenizer, (self.content, self._where)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens around them."""
        return [self._library.encode(text, add_special_tokens=False).ids for text in texts]

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """Returns the same ids as `encode`, and int32 [n, 2] character spans in each text."""
        found = [self._library.encode(text, add_special_tokens=False) for text in texts]
        return [(one.ids, np.array(one.offsets, np.int32).reshape(-1, 2)) for one in found]

    def _encode_after_mask(self, text: str) -> list[int]:
        return self.encode([text])[0]

    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        return np.array([not piece.startswith("##") for piece in pieces])


class _Words:
    """MeCab as a pre-tokeniser of the library, which keeps track of where characters came from."""

    def __init__(self, tagger: Any, characters: bool):
        self._tagger, self._characters = tagger, characters

    def pre_tokenize(self, text: Any) -> None:
        """Splits into the words that MeCab finds, or into all of their characters."""
        text.split(self._split)

    def _split(self, index: int, text: Any) -> list[Any]:
        whole, parts, position = text.normalized, [], 0
        for word in self._tagger(whole):
            begin = whole.index(word.surface, position)
            position = begin + len(word.surface)
            if self._characters:
                parts += [text[i : i + 1] for i in range(begin, position)]
            else:  # without NFKC a word may be, or hold, an ideographic space
                found = re.finditer(r"\S+", word.surface)
                parts += [text[begin + part.start() : begin + part.end()] for part in found]
        return parts


def _tagger(settings: Settings, where: str) -> Any:
    try:
        fugashi = importlib.import_module("fugashi")
        dictionary = importlib.import_module(settings.dictionary)
    except ModuleNotFoundError as error:
        packages = f"fugashi {settings.dictionary.replace('_', '-')}"
        raise InputError(
            f"{where}: its words are found by MeCab, which needs {error.name}: "
            f".venv/bin/pip install {packages}"
        ) from None
    folder = dictionary.DICDIR
    try:
        return fugashi.GenericTagger(f'-d "{folder}" -r "{folder}/mecabrc"')
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{where}: MeCab does not start ({reason})") from None


def _parsed(content: bytes, where: str) -> Settings:
    try:
        found = json.loads(content)
        settings = Settings(**{**found, "vocab": tuple(found["vocab"])})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{where}: no settings of a Japanese tokenizer ({error})") from None
    for name, allowed in (("dictionary", DICTIONARIES), ("subwords", SUBWORDS)):
        value = getattr(settings, name)
        if value not in allowed:
            raise InputError(
                f"{where}: {name}={value!r} must be one of {', '.join(allowed)}; the nearest is "
                f"{nearest(str(value), allowed)!r}"
            )
    typed = isinstance(settings.lowercase, bool) and isinstance(settings.normalize, bool)
    if not typed or not all(isinstance(piece, str) for piece in settings.vocab):
        raise InputError(f"{where}: settings of a wrong type for a Japanese tokenizer")
    return settings
