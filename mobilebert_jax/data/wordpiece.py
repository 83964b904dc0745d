"""BERT's WordPiece tokenizer."""

import bisect
import itertools
import string
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import vocabulary
from mobilebert_jax.data.tokenizer_base import Spans, Tokenizer

_MEMO_CHARACTERS = 4_000_000  # in words; about 100 MB in all
_JOINED_WORDS = 100
_SPAN_TEXTS = 1000  # at once: the library's record of a token takes 100 times the memory of its id


class WordPiece(Tokenizer):
    """BERT's uncased or cased WordPiece, on HF `tokenizers`.

    A word is split at spaces before the library sees it and its ids are remembered: every rule of
    BERT's normaliser and pre-tokeniser looks at one word at a time, so the ids are the same, and
    running text is encoded several times faster. So it is with the ASCII punctuation that ends a
    word, of which every character is a word of its own to BERT.
    """

    def __init__(self, content: bytes, lowercase: bool, where: str):
        pieces, vocab, self.oddities = _parse_vocabulary(content, where)
        super().__init__("wordpiece", lowercase, content, pieces, where)
        # Registering no special token keeps a literal "[MASK]" in the text three ordinary pieces.
        model = models.WordPiece(
            vocab=vocab,
            unk_token=self._pieces[self.unk],
            max_input_chars_per_word=vocabulary.MOST_WORD_CHARACTERS,
        )
        self._library = tokenizers.Tokenizer(model)
        self._library.normalizer = vocabulary.bert_normalizer(lowercase)
        self._library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._memo: dict[str, list[int]] = {}
        self._memo_characters = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens around them."""
        split = [text.split(" ") for text in texts]
        if self._memo_characters > _MEMO_CHARACTERS:
            self._memo, self._memo_characters = {}, 0
        unseen = self._unseen(itertools.chain.from_iterable(split))
        stems = [word.rstrip(string.punctuation) for word in unseen]
        ends = [word[len(stem) :] for word, stem in zip(unseen, stems, strict=True)]
        self._learn(self._unseen(itertools.chain(stems, ends)))
        for word, stem, end in zip(unseen, stems, ends, strict=True):
            if end:
                self._remember(word, self._memo[stem] + self._memo[end])
        ids_of = self._memo.__getitem__
        return [list(itertools.chain.from_iterable(map(ids_of, words))) for words in split]

    def _unseen(self, words: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(itertools.filterfalse(self._memo.__contains__, words)))

    def _learn(self, words: list[str]) -> None:
        """Remembers the ids of `words`, in none of which is a space.

        The library sees many as one text, which takes it half the time of as many texts, and says
        where in it each token begins.
        """
        groups = [words[i : i + _JOINED_WORDS] for i in range(0, len(words), _JOINED_WORDS)]
        texts = [" ".join(group) for group in groups]
        for group, encoding in zip(groups, self._library.encode_batch(texts), strict=True):
            ids, begins = encoding.ids, [begin for begin, _ in encoding.offsets]
            first = position = 0
            for word in group:
                position += len(word) + 1
                end = bisect.bisect_left(begins, position, first)
                self._remember(word, ids[first:end])
                first = end

    def _remember(self, word: str, ids: list[int]) -> None:
        self._memo[word] = ids
        self._memo_characters += len(word)

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """Returns the same ids as `encode`, and int32 [n, 2] character spans in each text."""
        found: list[tuple[list[int], Spans]] = []
        for first in range(0, len(texts), _SPAN_TEXTS):
            for encoding in self._library.encode_batch(list(texts[first : first + _SPAN_TEXTS])):
                found.append((encoding.ids, np.array(encoding.offsets, np.int32).reshape(-1, 2)))
        return found

    def _encode_after_mask(self, text: str) -> list[int]:
        return self.encode([text])[0]

    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        return np.array([not piece.startswith("##") for piece in pieces])


def _parse_vocabulary(content: bytes, where: str) -> tuple[list[str], dict[str, int], list[str]]:
    """Returns the piece of each line, the id of each piece, and what is odd about the file.

    As BERT's own reader does, every line has its number as its id, a blank one too, and of a piece
    that occurs twice the later id is used. Only line feeds end a piece.
    """
    try:
        lines = content.decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 at byte {error.start}; convert it with iconv"
        ) from None
    pieces = [line.removesuffix("\r") for line in lines]
    ids = {piece: number for number, piece in enumerate(pieces) if piece}
    blank = [number for number, piece in enumerate(pieces, 1) if not piece]
    repeated = [number for number, piece in enumerate(pieces) if piece and ids[piece] != number]
    odd = []
    if blank:
        odd.append(f"{where}: {len(blank)} blank lines, the first line {blank[0]}, have unused ids")
    if repeated:
        later = ids[pieces[repeated[0]]]
        odd.append(
            f"{where}: {len(repeated)} pieces occur again later, the first on lines "
            f"{repeated[0] + 1} and {later + 1}; the later id is used"
        )
    return pieces, ids, odd
