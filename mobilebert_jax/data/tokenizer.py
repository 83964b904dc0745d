"""Text to token ids and back: all tokenizers behind one interface.

A tokenizer is an artifact: a folder with `vocab.txt`, `sentencepiece.model` or, of an imported
network that splits in another way, `library.json` or `japanese.json`, and `tokenizer.json` with the
settings the vocabulary file does not hold. Ids of the special tokens always come from the
vocabulary. Text that happens to contain `[MASK]` or another special token is ordinary text: none of
its ids is ever a special one, so that a corpus cannot forge masks or separators.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from mobilebert_jax import storage
from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import vocabulary
from mobilebert_jax.data.japanese_tokenizer import JapaneseTokenizer
from mobilebert_jax.data.library_tokenizer import LibraryTokenizer
from mobilebert_jax.data.sentencepiece import SentencePiece
from mobilebert_jax.data.tokenizer_base import (
    SETTINGS_FILE,
    SPECIAL_TOKENS,
    VOCABULARY_FILES,
    Tokenizer,
)
from mobilebert_jax.data.wordpiece import WordPiece

IMPORTED = {"library": LibraryTokenizer, "japanese": JapaneseTokenizer}
"""Kinds that come with imported networks alone."""


def train(lines: Iterable[str], settings: schema.Tokenizer, directory: Path) -> Tokenizer:
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


def load_saved(folder: Path, digest: str) -> Tokenizer:
    """Loads a folder that `save` wrote; raises InputError where it is not the one of `digest`."""
    tokenizer = load(folder, schema.Tokenizer())
    if tokenizer.digest != digest:
        raise InputError(
            f"{folder}: the vocabulary or its settings were changed after they were saved; copy "
            "the folder again, or make it anew"
        )
    return tokenizer


def load(path: Path | str, settings: schema.Tokenizer) -> Tokenizer:
    """Loads a folder that `save` wrote, a `vocab.txt`, or a SentencePiece `.model`.

    A folder's own `tokenizer.json` goes before `settings`. Raises InputError if there is no such
    file, if it is of another kind than `settings.kind`, or if it lacks a special token.
    """
    path = storage.path(path)
    kind: str = settings.kind
    lowercase = settings.lowercase
    if (path / SETTINGS_FILE).is_file():
        kind, lowercase = _saved_settings(path / SETTINGS_FILE)
    if path.is_dir():
        path /= VOCABULARY_FILES[kind]
    if not path.is_file():
        raise InputError(
            f"tokenizer: there is no file {path}; give a vocab.txt (kind 'wordpiece'), a .model "
            "(kind 'sentencepiece_unigram' or 'sentencepiece_bpe'), or no path to train one"
        )
    if kind in IMPORTED:
        return IMPORTED[kind](path.read_bytes(), str(path))
    if (path.suffix == ".model") != (kind != "wordpiece"):
        wanted = "wordpiece" if kind != "wordpiece" else "sentencepiece_unigram"
        raise InputError(
            f"tokenizer.kind={kind!r} does not go with {path.name}; set tokenizer.kind={wanted}"
        )
    content = path.read_bytes()
    if kind == "wordpiece":
        return WordPiece(content, lowercase, str(path))
    return SentencePiece(content, kind, lowercase, str(path))


def _saved_settings(path: Path) -> tuple[str, bool]:
    try:
        saved = json.loads(path.read_bytes())
        kind, lowercase = saved["kind"], saved["lowercase"]
        if kind not in VOCABULARY_FILES or not isinstance(lowercase, bool):
            raise ValueError("unknown kind, or lowercase that is no bool")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{path}: must hold "kind", one of {", ".join(VOCABULARY_FILES)}, and "lowercase" '
            f"({error}); copy it again"
        ) from None
    return kind, lowercase
