"""Tokenizers as `transformers` keeps them beside a network.

A folder of Hugging Face's holds a `tokenizer.json` too, but of the library `tokenizers` and with
the whole vocabulary in it; the file of that name in this project's own folders is another one.

Other than here, `transformers` takes `[MASK]` and its like in a text for the special tokens.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer_base, vocabulary
from mobilebert_jax.data.japanese_tokenizer import JapaneseTokenizer
from mobilebert_jax.data.library_tokenizer import LibraryTokenizer
from mobilebert_jax.data.sentencepiece import SentencePiece
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.huggingface import sentencepiece as sentencepiece_model
from mobilebert_jax.interop.huggingface import tokenizer_rules
from mobilebert_jax.interop.huggingface.config import CLASSES
from mobilebert_jax.interop.huggingface.tokenizer_rules import (
    CONFIG,
    JAPANESE_CLASS,
    LIBRARY_CLASSES,
    LIBRARY_FILE,
    SPECIAL_TOKENS_MAP,
    VOCABULARY,
    WITHOUT,
    Rules,
)
from mobilebert_jax.interop.parameter_names import Body

SENTENCEPIECE = ("sentencepiece.model", "spiece.model")

_LONGEST_WORD = 200  # characters, as in BERT; longer words are unknown
_RULES = {
    "continuing_subword_prefix": "##",
    "normalizer": "BertNormalizer",
    "pre_tokenizer": "BertPreTokenizer",
}
"""Of a tokenizer.json that splits as BERT's WordPiece."""


def write(tokenizer: Tokenizer, folder: Path, model_type: Body, max_positions: int) -> list[str]:
    """Writes the tokenizer's files into `folder` and returns what a user of them should know.

    `model_type` is as in the network's config.json.
    """
    pieces, special = tokenizer.pieces(range(tokenizer.size)), _special(tokenizer)
    safetensors_files.write_json(folder / SPECIAL_TOKENS_MAP, special)
    about = {
        **special,
        "do_lower_case": tokenizer.lowercase,
        "model_max_length": max_positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    notes: list[str] = []
    library: tokenizers.Tokenizer | None
    if isinstance(tokenizer, WordPiece):
        spelled = "".join(f"{piece}\n" for piece in pieces)
        (folder / VOCABULARY).write_bytes(spelled.encode())
        library = _wordpiece(pieces, special["unk_token"], tokenizer.lowercase)
        about |= {
            "tokenizer_class": f"{CLASSES[model_type]}Tokenizer",
            "tokenize_chinese_chars": True,
            "strip_accents": tokenizer.lowercase,
        }
        notes.append(
            "Words of 101 to 200 characters are split into pieces here, as by BERT's own code; "
            "transformers 5 takes them for unknown."
        )
    elif isinstance(tokenizer, JapaneseTokenizer):
        (folder / VOCABULARY).write_bytes("".join(f"{piece}\n" for piece in pieces).encode())
        safetensors_files.write_json(
            folder / CONFIG, about | tokenizer_rules.japanese_config(tokenizer.settings)
        )
        return notes
    elif isinstance(tokenizer, LibraryTokenizer):
        (folder / LIBRARY_FILE).write_bytes(tokenizer.content)
        safetensors_files.write_json(
            folder / CONFIG, about | {"tokenizer_class": LIBRARY_CLASSES[0]}
        )
        return notes
    else:
        tokenizer.save(folder)
        # Its settings, of another form than those which the library keeps under this name.
        (folder / tokenizer_base.SETTINGS_FILE).unlink()
        model = sentencepiece_model.parse(
            (folder / SENTENCEPIECE[0]).read_bytes(), str(folder / SENTENCEPIECE[0])
        )
        library = sentencepiece_model.library(model, tokenizer.unk)
        # The model alone decides: no setting lowers what it does not.
        about |= {"tokenizer_class": LIBRARY_CLASSES[0], "do_lower_case": model.lowercase}
        if library is None:
            notes.append(
                f"The tokenizer is {SENTENCEPIECE[0]} alone: `tokenizers` has no equal of its "
                "settings, so encode texts with the package `sentencepiece`."
            )
        elif tokenizer.kind == "sentencepiece_unigram":
            notes.append(
                f"{LIBRARY_FILE} splits as {SENTENCEPIECE[0]} does, but for a few lines in 10,000 "
                "that two splits fit equally well."
            )
    safetensors_files.write_json(folder / CONFIG, about)
    if library is not None:
        _add_special(library, special)
        library.save(str(folder / LIBRARY_FILE))
    return notes


def read(folder: Path) -> Tokenizer | None:
    """Returns the tokenizer of a folder, None where it holds none that this project has.

    A SentencePiece model that a class adds nothing to goes first, then BERT's WordPiece, then a
    `tokenizer.json` of any kind, as it stands. Raises InputError for a file that cannot be read,
    and where text would be split by other rules than those of the network's own tokenizer.
    """
    rules = tokenizer_rules.read(folder)
    if rules.is_japanese:
        return _japanese(rules)
    model = next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    alone = model is not None and not rules.added and rules.name in ("", *LIBRARY_CLASSES)
    if model is not None and (alone or not rules.library):
        return _sentencepiece(model, rules)
    inside = rules.library.get("model")
    inside = inside if isinstance(inside, Mapping) else {}
    path = folder / VOCABULARY
    if _is_wordpiece(inside) or (not rules.library and path.is_file()):
        if path.is_file():
            content = path.read_bytes()
        else:
            path = folder / LIBRARY_FILE
            content = _vocabulary(inside, path)
        if not rules.library:
            tokenizer_rules.check_vocabulary_alone(rules, content.decode(errors="replace").split())
        if _is_berts(rules, inside):
            made = WordPiece(content, tokenizer_rules.flags(rules)["lowercase"], str(path))
            _check_same(made, inside.get("vocab"), rules)
            return made
        if not rules.library:
            return _built(content, rules, path)
    if not rules.library:
        return None
    return LibraryTokenizer(_as_it_stands(rules), str(folder / LIBRARY_FILE))


def _japanese(rules: Rules) -> Tokenizer:
    path = rules.folder / VOCABULARY
    if not path.is_file():
        raise InputError(
            f"{rules.folder}: there is no {VOCABULARY} for {JAPANESE_CLASS}. {WITHOUT}"
        )
    if tokenizer_rules.japanese_words(rules) == "basic":
        return _built(path.read_bytes(), rules, path)
    pieces = WordPiece(path.read_bytes(), False, str(path))
    settings = tokenizer_rules.japanese_settings(rules, pieces.pieces(range(pieces.size)))
    return JapaneseTokenizer(settings.content(), str(path))


def _sentencepiece(path: Path, rules: Rules) -> SentencePiece:
    content = path.read_bytes()
    model = sentencepiece_model.parse(content, str(path))
    if rules.name not in ("", *LIBRARY_CLASSES):
        raise InputError(
            f"{rules.folder}: the tokenizer_class {rules.name!r} has rules of its own around "
            f"{path.name}, and there is no {LIBRARY_FILE} that says which. {WITHOUT}"
        )
    if rules.added:
        raise InputError(
            f"{rules.folder}: the added token {rules.added[0].content!r} is none of {path.name}, "
            f"and there is no {LIBRARY_FILE} that knows both. {WITHOUT}"
        )
    lower = rules.about.get("do_lower_case", model.lowercase)
    if lower not in (None, model.lowercase):
        raise InputError(
            f"{rules.folder / CONFIG}: do_lower_case={lower}, but {path.name} itself "
            f"{'lowers' if model.lowercase else 'does not lower'} its text. {WITHOUT}"
        )
    return SentencePiece(content, model.kind, model.lowercase, str(path))


def _is_berts(rules: Rules, model: Mapping[str, Any]) -> bool:
    """Whether text is split as by BERT's own code, with no tokens added."""
    flags = tokenizer_rules.flags(rules)
    usual = flags["strip_accents"] in (None, flags["lowercase"]) and flags["handle_chinese_chars"]
    if rules.added or not usual:
        return False
    if not rules.library:
        return True
    parts = {name: rules.library.get(name) for name in ("normalizer", "pre_tokenizer")}
    kinds = {n: p.get("type") if isinstance(p, Mapping) else p for n, p in parts.items()}
    return {
        "continuing_subword_prefix": model.get("continuing_subword_prefix", "##"),
        **kinds,
    } == _RULES


def _check_same(tokenizer: WordPiece, vocab: Any, rules: Rules) -> None:
    """Raises InputError where vocab.txt has another piece at an id than tokenizer.json."""
    if not isinstance(vocab, Mapping):
        return
    pieces = tokenizer.pieces(range(tokenizer.size))
    ids = {piece: number for number, piece in enumerate(pieces)}
    other = next((piece for piece, number in vocab.items() if ids.get(piece) != number), None)
    if other is not None:
        raise InputError(
            f"{rules.folder}: the piece {other!r} has the id {vocab[other]!r} in {LIBRARY_FILE} "
            f"and {ids.get(other)} in {VOCABULARY}: they are of different networks"
        )


def _built(vocabulary_content: bytes, rules: Rules, path: Path) -> LibraryTokenizer:
    """Returns the tokenizer of a `vocab.txt` with tokens added, or other settings than BERT's."""
    plain = WordPiece(vocabulary_content, True, str(path))
    pieces = plain.pieces(range(plain.size))
    special = _special(plain)
    library = _wordpiece(pieces, special["unk_token"], True)
    flags = tokenizer_rules.flags(rules)
    library.normalizer = normalizers.BertNormalizer(clean_text=True, **flags)
    _add_special(library, special)
    for token in rules.added:
        library.add_tokens([tokenizers.AddedToken(token.content, **token.fields)])
        number = library.token_to_id(token.content)
        if token.id not in (None, number):
            raise InputError(
                f"{rules.folder}: the added token {token.content!r} has the id {token.id} there, "
                f"and would be {number} after the {plain.size} pieces of {path.name}"
            )
    return LibraryTokenizer(library.to_str().encode(), str(path))


def _as_it_stands(rules: Rules) -> bytes:
    """Returns tokenizer.json with what tokenizer_config.json changes of it."""
    description = dict(rules.library)
    normalizer = description.get("normalizer")
    if isinstance(normalizer, Mapping) and normalizer.get("type") == "BertNormalizer":
        description["normalizer"] = dict(normalizer) | tokenizer_rules.flags(rules)
    listed = {
        token.get("content")
        for token in description.get("added_tokens") or []
        if isinstance(token, Mapping)
    }
    missing = [token for token in rules.added if token.content not in listed]
    if missing:
        raise InputError(
            f"{rules.folder}: the added token {missing[0].content!r} is not in {LIBRARY_FILE}; "
            f"save the tokenizer again with transformers, which writes it there. {WITHOUT}"
        )
    return json.dumps(description, ensure_ascii=False).encode()


def _special(tokenizer: Tokenizer) -> dict[str, str]:
    names = (f"{name}_token" for name in tokenizer_base.SPECIAL_TOKENS)
    return dict(zip(names, tokenizer.pieces(tokenizer.special_ids), strict=True))


def _wordpiece(pieces: list[str], unk: str, lowercase: bool) -> tokenizers.Tokenizer:
    vocab = {piece: i for i, piece in enumerate(pieces)}
    model = models.WordPiece(vocab=vocab, unk_token=unk, max_input_chars_per_word=_LONGEST_WORD)
    library = tokenizers.Tokenizer(model)
    library.normalizer = vocabulary.bert_normalizer(lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    return library


def _add_special(library: tokenizers.Tokenizer, special: Mapping[str, str]) -> None:
    library.add_special_tokens(
        [tokenizers.AddedToken(token, normalized=False) for token in special.values()]
    )
    first, last = special["cls_token"], special["sep_token"]
    library.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(token, library.token_to_id(token)) for token in (first, last)],
    )


def _is_wordpiece(model: Mapping[str, Any]) -> bool:
    # Files of the library's first releases lack the type; only WordPiece has this setting.
    return model.get("type") == "WordPiece" or (
        "type" not in model and "continuing_subword_prefix" in model and "merges" not in model
    )


def _vocabulary(model: Mapping[str, Any], path: Path) -> bytes:
    """Returns the vocab.txt of a WordPiece in a tokenizer.json."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise InputError(f'{path}: "model" must hold "vocab", an object of pieces and their ids')
    pieces = sorted(vocab, key=lambda piece: int(vocab[piece]))
    if [vocab[piece] for piece in pieces] != list(range(len(pieces))):
        raise InputError(f"{path}: the ids of the vocabulary must be 0, 1, 2, ... without gaps")
    return "".join(f"{piece}\n" for piece in pieces).encode()
