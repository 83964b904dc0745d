"""How a folder of `transformers` wants its text split: all the files that say so, as one.

Source: `PreTrainedTokenizerBase._from_pretrained` and the tokenizers of BERT in `transformers`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.japanese_tokenizer import DICTIONARIES, SUBWORDS, Settings
from mobilebert_jax.data.tokenizer_base import SPECIAL_TOKENS
from mobilebert_jax.interop.huggingface.safetensors import read_json

LIBRARY_FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
VOCABULARY = "vocab.txt"
WITHOUT = "To read the network without its tokenizer, take the tokenizer's files away"

LIBRARY_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes without rules of their own."""
BERT_CLASSES = tuple(
    f"{stem}Tokenizer{speed}"
    for stem in ("Bert", "MobileBert", "SqueezeBert", "DistilBert", "Electra")
    for speed in ("", "Fast")
)
"""Classes that split a `vocab.txt` as BERT does."""
JAPANESE_CLASS = "BertJapaneseTokenizer"
_SPELLINGS = {spelling for spellings in SPECIAL_TOKENS.values() for spelling in spellings}
_FLAGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_CHINESE = re.compile("[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff]{2}")
_MOST_CHINESE_WORDS = 20
"""Pieces of several Chinese characters that a vocabulary of BERT's may hold by accident."""


class Added(NamedTuple):
    """A token that is found in a text before it is split."""

    content: str
    id: int | None
    """None where no file says it."""
    fields: dict[str, bool]
    """As the library has them: `special`, `normalized`, `single_word`, `lstrip`, `rstrip`."""


class Rules(NamedTuple):
    """What the files say."""

    folder: Path
    name: str
    """Of the class, empty where no file names one."""
    about: dict[str, Any]
    """tokenizer_config.json."""
    library: dict[str, Any]
    """tokenizer.json, empty where there is none."""
    added: tuple[Added, ...]
    """Beside the five special tokens."""

    @property
    def is_japanese(self) -> bool:
        """Whether words are found by a dictionary of Japanese."""
        words = self.about.get("word_tokenizer_type") or "basic"
        return self.name.startswith(JAPANESE_CLASS) or words != "basic"


def read(folder: Path) -> Rules:
    """Returns what the files of `folder` say; raises InputError for one that cannot be read."""
    about = _optional(folder / CONFIG)
    library = _optional(folder / LIBRARY_FILE)
    name = about.get("tokenizer_class") or _optional(folder / "config.json").get("tokenizer_class")
    if name is not None and not isinstance(name, str):
        raise InputError(f"{folder / CONFIG}: tokenizer_class={name!r} must be a name")
    return Rules(folder, name or "", about, library, _added(folder, about, library))


def flags(rules: Rules) -> dict[str, Any]:
    """Returns the settings of BERT's normaliser, under the names that the library has for them.

    Those of tokenizer_config.json go before those of tokenizer.json, where a class of BERT's reads
    them.
    """
    normalizer = rules.library.get("normalizer")
    found = normalizer if isinstance(normalizer, Mapping) else {}
    values = {ours: found.get(ours) for ours in _FLAGS.values()}
    if rules.name not in LIBRARY_CLASSES:
        values |= {
            ours: rules.about[theirs]
            for theirs, ours in _FLAGS.items()
            if rules.about.get(theirs) is not None
        }
    japanese = rules.name.startswith(JAPANESE_CLASS)
    defaults = {"lowercase": not japanese, "handle_chinese_chars": not japanese}
    values |= {key: value for key, value in defaults.items() if values[key] is None}
    for key, value in values.items():
        if value is not None and not isinstance(value, bool):
            raise InputError(
                f"{rules.folder}: the tokenizer's {key}={value!r} must be true or false"
            )
    return values


def check_vocabulary_alone(rules: Rules, pieces: list[str]) -> None:
    """Raises InputError where a `vocab.txt` without tokenizer.json is not split as by BERT."""
    where = rules.folder / CONFIG
    if rules.name and rules.name not in (*BERT_CLASSES, *LIBRARY_CLASSES):
        raise InputError(
            f"{where}: the tokenizer_class {rules.name!r} splits by other rules than those of "
            f"{', '.join(BERT_CLASSES)}, and there is no {LIBRARY_FILE} that says which; the "
            f"nearest is {schema.nearest(rules.name, BERT_CLASSES)!r}. {WITHOUT}"
        )
    subwords = rules.about.get("subword_tokenizer_type") or "wordpiece"
    if subwords != "wordpiece":
        raise InputError(
            f"{where}: subword_tokenizer_type={subwords!r} is not supported. {WITHOUT}"
        )
    if rules.about.get("do_basic_tokenize") is False:
        raise InputError(
            f"{where}: do_basic_tokenize is false, so that text must come split into words; only "
            f"tokenizers that split it are supported. {WITHOUT}"
        )
    kept = rules.about.get("never_split") or []
    if set(kept if isinstance(kept, list) else [str(kept)]) - _SPELLINGS:
        raise InputError(f"{where}: never_split={kept!r} is not supported. {WITHOUT}")
    words = [piece for piece in pieces if _CHINESE.search(piece)]
    if len(words) > _MOST_CHINESE_WORDS:
        raise InputError(
            f"{rules.folder / VOCABULARY}: {len(words):,} pieces of several Chinese characters, "
            f"such as {words[0]!r}, which BERT's tokenizer never makes: it is that of another, of "
            f"{JAPANESE_CLASS} for example; put its {CONFIG} or {LIBRARY_FILE} beside it"
        )


def japanese_words(rules: Rules) -> str:
    """Returns how `BertJapaneseTokenizer` finds words: "mecab" or "basic".

    Raises InputError for another way, and for words or pieces that are not made at all.
    """
    where = rules.folder / CONFIG
    words = rules.about.get("word_tokenizer_type") or "basic"
    subwords = rules.about.get("subword_tokenizer_type") or "wordpiece"
    allowed = {"basic": ("wordpiece",), "mecab": SUBWORDS}
    if words not in allowed or subwords not in allowed[words]:
        raise InputError(
            f"{where}: word_tokenizer_type={words!r} with subword_tokenizer_type={subwords!r} is "
            f"not supported; mecab is, with {' or '.join(SUBWORDS)}. {WITHOUT}"
        )
    for step in ("do_word_tokenize", "do_subword_tokenize"):
        if rules.about.get(step) is False:
            raise InputError(f"{where}: {step} is false, which is not supported. {WITHOUT}")
    return str(words)


def japanese_settings(rules: Rules, pieces: list[str]) -> Settings:
    """Returns how a `BertJapaneseTokenizer` with MeCab splits; raises InputError for what it says
    that is not supported."""
    where = rules.folder / CONFIG
    mecab = rules.about.get("mecab_kwargs") or {}
    known = {"mecab_dic", "normalize_text", "mecab_option", "do_lower_case"}
    if not isinstance(mecab, Mapping) or set(mecab) - known or mecab.get("mecab_option"):
        raise InputError(f"{where}: mecab_kwargs={mecab!r} is not supported. {WITHOUT}")
    if rules.added or set(rules.about.get("never_split") or []) - _SPELLINGS:
        kept = rules.added[0].content if rules.added else rules.about["never_split"]
        raise InputError(
            f"{where}: {kept!r} is not to be split, which is not supported beside MeCab. {WITHOUT}"
        )
    dictionary = mecab.get("mecab_dic", "unidic_lite")
    if dictionary not in DICTIONARIES:
        raise InputError(
            f"{where}: mecab_dic={dictionary!r} is not supported; {', '.join(DICTIONARIES)} are. "
            f"{WITHOUT}"
        )
    return Settings(
        vocab=tuple(pieces),
        dictionary=dictionary,
        subwords=rules.about.get("subword_tokenizer_type") or "wordpiece",
        lowercase=bool(rules.about.get("do_lower_case", False)),
        normalize=bool(mecab.get("normalize_text", True)),
    )


def japanese_config(settings: Settings) -> dict[str, Any]:
    """Returns the entries of tokenizer_config.json from which `japanese_settings` are read."""
    return {
        "tokenizer_class": JAPANESE_CLASS,
        "word_tokenizer_type": "mecab",
        "subword_tokenizer_type": settings.subwords,
        "do_lower_case": settings.lowercase,
        "mecab_kwargs": {
            "mecab_dic": settings.dictionary,
            "normalize_text": settings.normalize,
        },
    }


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _added(folder: Path, about: dict[str, Any], library: dict[str, Any]) -> tuple[Added, ...]:
    """Returns the added tokens of all files, each once, in the order of their ids."""
    special: list[Any] = []
    for settings in (_optional(folder / SPECIAL_TOKENS_MAP), about):
        more = settings.get("additional_special_tokens") or []
        special += more if isinstance(more, list) else [more]
    spelled = {_content(token, folder) for token in special}
    found: dict[str, Added] = {}

    def add(token: Any, number: Any, where: Path) -> None:
        content = _content(token, where)
        if number is not None and (type(number) is not int or number < 0):
            raise InputError(f"{where}: the id of the added token {content!r} is {number!r}")
        fields = {"special": content in spelled, "normalized": content not in spelled}
        if isinstance(token, Mapping):
            fields |= {
                name: token[name]
                for name in ("special", "normalized", "single_word", "lstrip", "rstrip")
                if isinstance(token.get(name), bool)
            }
        before = found.get(content)
        if before is not None and None not in (number, before.id) and number != before.id:
            raise InputError(
                f"{where}: the added token {content!r} has the ids {before.id} and {number}"
            )
        if before is None:
            found[content] = Added(content, number, fields)
        elif before.id is None:
            found[content] = before._replace(id=number)

    listed = library.get("added_tokens") or []
    for token in listed if isinstance(listed, list) else [listed]:
        number = token.get("id") if isinstance(token, Mapping) else None
        add(token, number, folder / LIBRARY_FILE)
    decoder = about.get("added_tokens_decoder") or {}
    if not isinstance(decoder, Mapping) or not all(map(str.isdecimal, decoder)):
        raise InputError(f"{folder / CONFIG}: added_tokens_decoder must hold tokens by their ids")
    for key, token in decoder.items():
        add(token, int(key[:18]), folder / CONFIG)
    for token, number in _optional(folder / ADDED_TOKENS).items():
        add(token, number, folder / ADDED_TOKENS)
    for token in special:
        add(token, None, folder / SPECIAL_TOKENS_MAP)
    others = [added for added in found.values() if added.content not in _SPELLINGS]
    return tuple(sorted(others, key=lambda added: (added.id is None, added.id or 0)))


def _content(token: Any, where: Path) -> str:
    content = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(content, str) or not content:
        raise InputError(f"{where}: {token!r} is no added token; it must be a text or have one")
    return content
