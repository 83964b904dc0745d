"""Any tokenizer of the library `tokenizers`, as its own file describes it.

Its normaliser, pre-tokeniser, model and added tokens are used as they stand. Only the five special
tokens are taken off its list of added tokens, so that a text which spells one does not forge it.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tokenizer_base import Spans, Tokenizer

_MOST_UNUSED_IDS = 10_000
_SPAN_TEXTS = 1000  # at once: the library's record of a token takes 100 times the memory of its id


class LibraryTokenizer(Tokenizer):
    """A `tokenizer.json` of the library `tokenizers`; `content` are its bytes."""

    def __init__(self, content: bytes, where: str):
        self._description = _parsed(content, where)
        whole = _made(self._description, where)
        normalizer = whole.normalizer
        lowercase = normalizer is not None and normalizer.normalize_str("A") == "a"
        vocab = whole.get_vocab(with_added_tokens=True)
        super().__init__("library", lowercase, content, _pieces(vocab, where), where)
        self.oddities = []
        special = set(self.pieces(self.special_ids))
        self._library = _made(_without(self._description, special), where)
        mask = self._pieces[self.mask]
        self._with_mask = _made(_without(self._description, special - {mask}), where)
        self._with_mask.add_special_tokens([mask])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens around them."""
        found = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """Returns the same ids as `encode`, and int32 [n, 2] character spans in each text."""
        found: list[tuple[list[int], Spans]] = []
        for first in range(0, len(texts), _SPAN_TEXTS):
            some = list(texts[first : first + _SPAN_TEXTS])
            for encoding in self._library.encode_batch(some, add_special_tokens=False):
                found.append((encoding.ids, np.array(encoding.offsets, np.int32).reshape(-1, 2)))
        return found

    def _encode_after_mask(self, text: str) -> list[int]:
        ids = self._with_mask.encode(self._pieces[self.mask] + text, add_special_tokens=False).ids
        return list(ids[1:])

    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        prefix = self._description["model"].get("continuing_subword_prefix")
        if prefix:
            return np.array([not piece.startswith(prefix) for piece in pieces])
        spaces = tuple(mark for mark in "▁Ġ" if any(piece.startswith(mark) for piece in pieces))
        if not spaces:
            return np.ones(len(pieces), bool)
        return np.array(
            [
                piece.startswith(spaces) or unicodedata.category(piece[:1] or "a")[0] in "PS"
                for piece in pieces
            ]
        )


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise InputError(f'{where}: must be an object with a "model", as `tokenizers` saves it')
    # Around a text this project puts special tokens itself, and cuts and fills up rows itself.
    return found | {"post_processor": None, "truncation": None, "padding": None}


def _without(description: Mapping[str, Any], tokens: set[str]) -> dict[str, Any]:
    """Returns the description without some of its added tokens."""
    added = description.get("added_tokens") or []
    return dict(description) | {
        "added_tokens": [token for token in added if token["content"] not in tokens]
    }


def _made(description: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(description))
    except Exception as error:
        raise InputError(f"{where}: `tokenizers` cannot read it ({error})") from None


def _pieces(vocab: Mapping[str, int], where: str) -> list[str]:
    """Returns the piece of each id, "" for ids without one."""
    size = max(vocab.values(), default=-1) + 1
    if size > len(vocab) + _MOST_UNUSED_IDS:
        raise InputError(f"{where}: of the ids up to {size - 1} only {len(vocab)} have a piece")
    pieces = [""] * size
    for piece, number in vocab.items():
        pieces[number] = piece
    return pieces
