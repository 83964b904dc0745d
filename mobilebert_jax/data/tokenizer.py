"""Text to token ids and back: WordPiece and SentencePiece behind one interface.

A tokenizer is an artefact: a folder with `vocab.txt` or `sentencepiece.model`, and `tokenizer.json`
with the settings the vocabulary file does not hold. Ids of the special tokens always come from the
vocabulary. Text that happens to contain `[MASK]` or another special token is ordinary text: none of
its ids is ever a special one, so that a corpus cannot forge masks or separators.
"""

import abc
import bisect
import hashlib
import itertools
import json
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from numpy.typing import NDArray
from sentencepiece import sentencepiece_pb2
from tokenizers import models, pre_tokenizers

from mobilebert_jax import config, storage
from mobilebert_jax.config import InputError
from mobilebert_jax.data import atomic, vocabulary

VOCABULARY_FILES = {
    "wordpiece": "vocab.txt",
    "sentencepiece_unigram": "sentencepiece.model",
    "sentencepiece_bpe": "sentencepiece.model",
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

# Protocol buffers merge when joined: this one says only normalizer_spec.add_dummy_prefix = false.
_WITHOUT_PREFIX = b"\x1a\x02\x18\x00"

_MEMO_CHARACTERS = 4_000_000  # in words; about 100 MB in all
_JOINED_WORDS = 100
_SPAN_TEXTS = 1000  # at once: the library's record of a token takes 100 times the memory of its id

# Generated code makes its classes at import, where no type checker sees them.
_SentencePieceText: Any = vars(sentencepiece_pb2)["SentencePieceText"]

Spans = NDArray[np.int32]
"""[n, 2]: where in a text the characters of each of its n tokens begin, and where they end."""


class Tokenizer(abc.ABC):
    """Token ids of one vocabulary.

    `kind` is the name in the configuration, `size` the number of pieces; `pad`, `unk`, `cls`, `sep`
    and `mask` are ids; `starts_word` is bool [size], true where a piece begins a word; `digest` is
    the SHA-256 of the vocabulary file and the settings.
    """

    def __init__(self, kind: str, lowercase: bool, content: bytes, pieces: list[str], where: str):
        self.kind = kind
        self.lowercase = lowercase
        self.size = len(pieces)
        self.digest = hashlib.sha256(_settings(kind, lowercase) + content).hexdigest()
        self.starts_word = self._starts_word(pieces)
        self._content = content
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
    def _join(self, ids: list[int]) -> str:
        """Returns the text of ids none of which is special."""

    @abc.abstractmethod
    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        """Returns bool [size], true where a piece begins a word."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the vocabulary's spelling of each id."""
        return [self._pieces[i] for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns readable text; padding is dropped, other special tokens keep their spelling."""
        special = set(self.special_ids)
        parts: list[str] = []
        for is_special, group in itertools.groupby(ids, special.__contains__):
            if is_special:
                parts += [self._pieces[i] for i in group if i != self.pad]
            else:
                parts.append(self._join([int(i) for i in group]))
        return " ".join(part for part in parts if part)

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
        atomic.write_bytes(directory / VOCABULARY_FILES[self.kind], self._content)
        atomic.write_bytes(directory / SETTINGS_FILE, _settings(self.kind, self.lowercase))


class WordPiece(Tokenizer):
    """BERT's uncased or cased WordPiece, on HF `tokenizers`.

    A word is split at spaces before the library sees it and its ids are remembered: every rule of
    BERT's normaliser and pre-tokeniser looks at one word at a time, so the ids are the same, and
    running text is encoded several times faster. So it is with the ASCII punctuation that ends a
    word, of which every character is a word of its own to BERT.
    """

    def __init__(self, content: bytes, lowercase: bool, where: str):
        vocab = _parse_vocabulary(content, where)
        super().__init__("wordpiece", lowercase, content, list(vocab), where)
        # Registering no special token keeps a literal "[MASK]" in the text three ordinary pieces.
        # BERT gives up on words of more than 200 characters; the library's default is 100.
        model = models.WordPiece(
            vocab=vocab, unk_token=self._pieces[self.unk], max_input_chars_per_word=200
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

    def _join(self, ids: list[int]) -> str:
        return " ".join(self.pieces(ids)).replace(" ##", "")

    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        return np.array([not piece.startswith("##") for piece in pieces])


class SentencePiece(Tokenizer):
    """A SentencePiece unigram or BPE model.

    Scripts that put no space between words have no word starts but those after punctuation.
    """

    def __init__(self, content: bytes, kind: str, lowercase: bool, where: str):
        self._processor = _load_model(content, where)
        pieces = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        super().__init__(kind, lowercase, content, pieces, where)
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

    def _join(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def _starts_word(self, pieces: list[str]) -> np.ndarray:
        return np.array([p[0] == "▁" or unicodedata.category(p[0])[0] in "PS" for p in pieces])


def train(lines: Iterable[str], settings: config.Tokenizer, directory: Path) -> Tokenizer:
    """Trains the vocabulary that `settings` describes on `lines` and saves it in `directory`.

    The same lines and settings give the same bytes on every machine. Raises InputError if the text
    is too little or too varied for the vocabulary size.
    """
    where = f"the vocabulary trained on the corpus (tokenizer.vocab_size={settings.vocab_size})"
    special = [spellings[0] for spellings in SPECIAL_TOKENS.values()]
    trained: Tokenizer
    if settings.kind == "wordpiece":
        pieces = vocabulary.train_wordpiece(lines, settings, special)
        trained = WordPiece("".join(f"{p}\n" for p in pieces).encode(), settings.lowercase, where)
    else:
        content = vocabulary.train_sentencepiece(lines, settings, special)
        trained = SentencePiece(content, settings.kind, settings.lowercase, where)
    trained.save(directory)
    return trained


def load(path: Path | str, settings: config.Tokenizer) -> Tokenizer:
    """Loads a folder that `save` wrote, a `vocab.txt`, or a SentencePiece `.model`.

    A folder's own `tokenizer.json` goes before `settings`. Raises InputError if there is no such
    file, if it is of another kind than `settings.kind`, or if it lacks a special token.
    """
    path = storage.path(path)
    kind, lowercase = settings.kind, settings.lowercase
    if (path / SETTINGS_FILE).is_file():
        saved = json.loads((path / SETTINGS_FILE).read_text())
        kind, lowercase = saved["kind"], saved["lowercase"]
    if path.is_dir():
        path /= VOCABULARY_FILES[kind]
    if not path.is_file():
        raise InputError(
            f"tokenizer: there is no file {path}; give a vocab.txt (kind 'wordpiece'), a .model "
            "(kind 'sentencepiece_unigram' or 'sentencepiece_bpe'), or no path to train one"
        )
    if (path.suffix == ".model") != (kind != "wordpiece"):
        wanted = "wordpiece" if kind != "wordpiece" else "sentencepiece_unigram"
        raise InputError(
            f"tokenizer.kind={kind!r} does not go with {path.name}; set tokenizer.kind={wanted}"
        )
    content = path.read_bytes()
    if kind == "wordpiece":
        return WordPiece(content, lowercase, str(path))
    return SentencePiece(content, kind, lowercase, str(path))


def _settings(kind: str, lowercase: bool) -> bytes:
    settings: dict[str, Any] = {"kind": kind, "lowercase": lowercase}
    return json.dumps(settings, sort_keys=True).encode()


def _parse_vocabulary(content: bytes, where: str) -> dict[str, int]:
    """Returns `{piece: id}` of a vocab.txt; only line feeds end a piece."""
    try:
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 at byte {error.start}; convert it with iconv"
        ) from None
    vocab: dict[str, int] = {}
    for number, line in enumerate(lines):
        piece = line.removesuffix("\r")
        if not piece or piece in vocab:
            what = f"repeats the piece of line {vocab[piece] + 1}" if piece else "is empty"
            raise InputError(
                f"{where}: line {number + 1} {what}; a line is one piece, its number the id"
            )
        vocab[piece] = number
    return vocab


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
