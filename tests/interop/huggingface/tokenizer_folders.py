"""Folders of tokenizers in the forms in which they are published, with small vocabularies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tests.interop.huggingface import sentences

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NAMES = ("pad", "unk", "cls", "sep", "mask")


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content, ensure_ascii=False))


def pieces_of(language: str) -> list[str]:
    """Returns a WordPiece vocabulary: all characters, each also within a word, and some words."""
    texts = sentences.of(language)
    variants = [text.lower() for text in texts] + texts
    characters = sorted({c for text in variants for c in text if not c.isspace()} - {"\u200b"})
    words = sorted({w for text in variants for w in text.split() if 1 < len(w) < 8})[:150]
    kept = [word for word in words if not word.startswith("[")]
    return [*SPECIAL, *characters, *(f"##{c}" for c in characters), *kept]


def vocabulary(folder: Path, language: str, about: dict[str, Any], config: Any = None) -> None:
    """Writes vocab.txt with tokenizer_config.json and, where it is given, config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces_of(language)))
    _write(folder, "tokenizer_config.json", about)
    if config is not None:
        _write(folder, "config.json", config)


def library(folder: Path, language: str, made: tokenizers.Tokenizer, about: Any = None) -> None:
    """Trains a tokenizer of the library on the sentences and writes its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [text for text in sentences.of(language) if "[E1]" not in text]
    options: dict[str, Any] = {"special_tokens": list(SPECIAL), "show_progress": False}
    if isinstance(made.model, models.Unigram):
        trainer: Any = trainers.UnigramTrainer(vocab_size=300, unk_token="[UNK]", **options)
    elif isinstance(made.model, models.BPE):
        trainer = trainers.BpeTrainer(vocab_size=400, **options)
    else:
        trainer = trainers.WordPieceTrainer(vocab_size=400, **options)
    made.train_from_iterator(texts, trainer)
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    made.add_tokens([tokenizers.AddedToken("[E1]", special=True, normalized=False)])
    made.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": token for name, token in zip(_NAMES, SPECIAL, strict=True)}
    _write(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", **special, **(about or {})},
    )


def _zwnj_is_space() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Replace("\u200c", " "), normalizers.BertNormalizer(lowercase=False)]
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def _unigram() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


def _byte_level() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


def _added(folder: Path, language: str) -> None:
    vocabulary(folder, language, {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    number = len(pieces_of(language))
    _write(folder, "added_tokens.json", {"[E1]": number, "newword": number + 1})
    _write(folder, "special_tokens_map.json", {"additional_special_tokens": ["[E1]"]})


def _decoder(folder: Path, language: str) -> None:
    number = len(pieces_of(language))
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokens = {
        **{str(i): {"content": token, "special": True, **flags} for i, token in enumerate(SPECIAL)},
        str(number): {"content": "[E1]", "special": True, **flags},
    }
    about = {"tokenizer_class": "MobileBertTokenizer", "added_tokens_decoder": tokens}
    vocabulary(folder, language, about)


def _japanese(**about: Any) -> Callable[[Path, str], None]:
    def write(folder: Path, language: str) -> None:
        given = {"do_lower_case": False, "word_tokenizer_type": "mecab", **about}
        config = {"tokenizer_class": "BertJapaneseTokenizer", "model_type": "bert"}
        vocabulary(folder, language, given, config)

    return write


FORMS: dict[str, Callable[[Path, str], None]] = {
    "bert": lambda folder, language: vocabulary(
        folder, language, {"tokenizer_class": "BertTokenizer"}
    ),
    "cased": lambda folder, language: vocabulary(
        folder, language, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    ),
    "keeps_accents": lambda folder, language: vocabulary(
        folder, language, {"tokenizer_class": "BertTokenizer", "strip_accents": False}
    ),
    "chinese_words": lambda folder, language: vocabulary(
        folder, language, {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": False}
    ),
    "added_tokens": _added,
    "added_tokens_decoder": _decoder,
    "zwnj_is_space": lambda folder, language: library(folder, language, _zwnj_is_space()),
    "unigram": lambda folder, language: library(folder, language, _unigram()),
    "byte_level_bpe": lambda folder, language: library(folder, language, _byte_level()),
}
JAPANESE = {
    "mecab": _japanese(),
    "ipadic": _japanese(mecab_kwargs={"mecab_dic": "ipadic"}),
    "characters": _japanese(subword_tokenizer_type="character"),
    "lowercase": _japanese(do_lower_case=True),
    "not_normalized": _japanese(mecab_kwargs={"normalize_text": False}),
}
