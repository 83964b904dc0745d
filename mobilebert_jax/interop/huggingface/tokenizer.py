"""Tokenizers as `transformers` keeps them beside a network.

A folder of Hugging Face's holds a `tokenizer.json` too, but of the library `tokenizers` and with
the whole vocabulary in it; the file of that name in this project's own folders is another one.

Other than here, `transformers` takes `[MASK]` and its like in a text for the special tokens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer_base, vocabulary
from mobilebert_jax.data.sentencepiece import SentencePiece
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.huggingface import sentencepiece as sentencepiece_model
from mobilebert_jax.interop.huggingface.config import CLASSES

LIBRARY_FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
VOCABULARY = "vocab.txt"
SENTENCEPIECE = ("sentencepiece.model", "spiece.model")

_LIBRARY_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes without rules of their own."""
_WORDPIECE_CLASSES = (
    *(f"{stem}Tokenizer{speed}" for stem in CLASSES.values() for speed in ("", "Fast")),
    *_LIBRARY_CLASSES,
)
_LONGEST_WORD = 200  # characters, as in BERT; longer words are unknown
_RULES = {
    "continuing_subword_prefix": "##",
    "normalizer": "BertNormalizer",
    "pre_tokenizer": "BertPreTokenizer",
}
"""Of a tokenizer.json that splits as BERT's WordPiece."""
_WITHOUT = "To read the network without its tokenizer, take the tokenizer's files away"


def write(tokenizer: Tokenizer, folder: Path, model_type: str, max_positions: int) -> list[str]:
    """Writes the tokenizer's files into `folder` and returns what a user of them should know.

    `model_type` is `bert` or `mobilebert`.
    """
    pieces = tokenizer.pieces(range(tokenizer.size))
    special = {
        f"{name}_token": pieces[i]
        for name, i in zip(tokenizer_base.SPECIAL_TOKENS, tokenizer.special_ids, strict=True)
    }
    safetensors_files.write_json(folder / SPECIAL_TOKENS, special)
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
    else:
        tokenizer.save(folder)
        # Its settings, of another form than those which the library keeps under this name.
        (folder / tokenizer_base.SETTINGS_FILE).unlink()
        model = sentencepiece_model.parse(
            (folder / SENTENCEPIECE[0]).read_bytes(), str(folder / SENTENCEPIECE[0])
        )
        library = sentencepiece_model.library(model, tokenizer.unk)
        # The model alone decides: no setting lowers what it does not.
        about |= {"tokenizer_class": _LIBRARY_CLASSES[0], "do_lower_case": model.lowercase}
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

    SentencePiece models go before `vocab.txt`, and that before a WordPiece `tokenizer.json`. Raises
    InputError for a file that cannot be read, for a WordPiece that splits by other rules than
    BERT's, and for a SentencePiece model around which a class has rules of its own, since the ids
    would be others.
    """
    about = _optional_json(folder / CONFIG)
    library = _optional_json(folder / LIBRARY_FILE)
    for name in SENTENCEPIECE:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            model = sentencepiece_model.parse(content, str(folder / name))
            _check_class(about, _LIBRARY_CLASSES, folder)
            if about.get("do_lower_case", model.lowercase) not in (None, model.lowercase):
                raise InputError(
                    f"{folder / CONFIG}: do_lower_case={about['do_lower_case']}, but {name} itself "
                    f"{'lowers' if model.lowercase else 'does not lower'} its text. {_WITHOUT}"
                )
            return SentencePiece(content, model.kind, model.lowercase, str(folder / name))
    path = folder / VOCABULARY
    inside = library.get("model")
    inside = inside if isinstance(inside, Mapping) else {}
    if path.is_file():
        content = path.read_bytes()
    elif _is_wordpiece(inside):
        path = folder / LIBRARY_FILE
        content = _vocabulary(inside, path)
    else:
        return None
    _check_class(about, _WORDPIECE_CLASSES, folder)
    if _is_wordpiece(inside):
        _check_rules(library, inside, folder / LIBRARY_FILE)
    return WordPiece(content, _lowercase(about, library, folder), str(path))


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


def _optional_json(path: Path) -> dict[str, Any]:
    return safetensors_files.read_json(path) if path.is_file() else {}


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


def _check_class(about: Mapping[str, Any], allowed: tuple[str, ...], folder: Path) -> None:
    """Raises InputError for a class of `transformers` that splits otherwise than its files say."""
    name = about.get("tokenizer_class") or allowed[0]
    if name not in allowed:
        raise InputError(
            f"{folder / CONFIG}: the tokenizer_class {name!r} splits by other rules than those of "
            f"{' or '.join(allowed)}; the nearest is {schema.nearest(str(name), allowed)!r}. "
            f"{_WITHOUT}"
        )


def _check_rules(library: Mapping[str, Any], model: Mapping[str, Any], path: Path) -> None:
    """Raises InputError for a tokenizer.json whose WordPiece is not cut out of text as BERT's."""
    parts = {name: library.get(name) for name in ("normalizer", "pre_tokenizer")}
    kinds = {
        n: part.get("type") if isinstance(part, Mapping) else part for n, part in parts.items()
    }
    found = {"continuing_subword_prefix": model.get("continuing_subword_prefix", "##"), **kinds}
    for name, value in _RULES.items():
        if found[name] != value:
            raise InputError(
                f"{path}: {name} is {found[name]!r}; only {value!r} is supported. {_WITHOUT}"
            )
    added, vocab = library.get("added_tokens") or [], model.get("vocab")
    size = len(vocab) if isinstance(vocab, Mapping) else 0
    for token in added if isinstance(added, list) else [added]:
        at = token.get("id") if isinstance(token, Mapping) else None
        if type(at) is not int or not 0 <= at < size:
            raise InputError(
                f"{path}: added_tokens holds {token!r}, which is not among the {size} pieces of "
                f"the vocabulary; only tokens that are can be read. {_WITHOUT}"
            )


def _lowercase(about: Mapping[str, Any], library: Mapping[str, Any], folder: Path) -> bool:
    """Returns whether a WordPiece lowers its text; raises InputError for rules unlike BERT's."""
    normalizer = library.get("normalizer")
    normalizer = normalizer if isinstance(normalizer, Mapping) else {}
    rules = {
        "do_lower_case": normalizer.get("lowercase"),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
    }
    rules |= {key: about[key] for key in rules if about.get(key) is not None}
    lowercase = True if rules["do_lower_case"] is None else bool(rules["do_lower_case"])
    if rules["strip_accents"] not in (None, lowercase):
        raise InputError(
            f"{folder}: the tokenizer has strip_accents={rules['strip_accents']} and "
            f"do_lower_case={lowercase}; only WordPieces that do both or neither are supported"
        )
    if rules["tokenize_chinese_chars"] is False:
        raise InputError(
            f"{folder}: the tokenizer has tokenize_chinese_chars=False; only True is supported"
        )
    return lowercase
