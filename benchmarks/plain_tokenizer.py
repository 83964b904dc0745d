"""BERT's uncased tokenizer in plain Python, what the benchmarks of text compare with."""

import unicodedata
from pathlib import Path


class PlainTokenizer:
    """BERT's uncased tokenizer, character by character."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").splitlines()
        self.vocab = {piece: number for number, piece in enumerate(lines)}

    def tokenize(self, text: str) -> list[str]:
        """Returns the pieces of a text."""
        pieces = []
        for word in self._clean(text).split():
            plain = unicodedata.normalize("NFD", word.lower())
            plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
            for part in self._split_punctuation(plain):
                pieces += self._greedy(part)
        return pieces

    def ids(self, pieces: list[str]) -> list[int]:
        """Returns the ids of pieces."""
        return [self.vocab[piece] for piece in pieces]

    def _clean(self, text: str) -> str:
        kept = []
        for c in text:
            category = unicodedata.category(c)
            if c in " \t\n\r" or category == "Zs":
                kept.append(" ")
            elif c not in "\0\ufffd" and not category.startswith("C"):
                kept.append(f" {c} " if _is_ideograph(ord(c)) else c)
        return "".join(kept)

    def _split_punctuation(self, word: str) -> list[str]:
        parts: list[str] = []
        starts = True
        for c in word:
            code = ord(c)
            ascii_mark = 33 <= code < 48 or 58 <= code < 65 or 91 <= code < 97 or 123 <= code < 127
            if ascii_mark or unicodedata.category(c).startswith("P"):
                parts.append(c)
                starts = True
            elif starts:
                parts.append(c)
                starts = False
            else:
                parts[-1] += c
        return parts

    def _greedy(self, word: str) -> list[str]:
        if len(word) > 200:
            return ["[UNK]"]
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return ["[UNK]"]
            pieces.append(piece)
            start = end
        return pieces


def _is_ideograph(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2A6DF
        or 0x2A700 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )
