"""Tokenizers of published folders: split as they say, or refused with what is not supported."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.data.library_tokenizer import LibraryTokenizer
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop.huggingface import tokenizer as huggingface_tokenizer
from tests.interop import exchanged
from tests.interop.huggingface import sentences, tokenizer_folders
from tests.interop.huggingface.tokenizer_folders import FORMS

BERT = {"tokenizer_class": "BertTokenizer"}


def read(folder: Path) -> Any:
    found = huggingface_tokenizer.read(folder)
    assert found is not None
    return found


def texts_of(tokenizer: Any, text: str) -> list[str]:
    """Returns the pieces of a text."""
    return tokenizer.pieces(tokenizer.encode([text])[0])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_saved_and_exported(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path / "published", "persian")
    ours, texts = read(tmp_path / "published"), sentences.of("persian", 40)
    assert isinstance(ours, WordPiece if form in ("bert", "cased") else LibraryTokenizer)
    ids = ours.encode(texts)
    assert len({i for one in ids for i in one}) > 20
    ours.save(tmp_path / "saved")
    assert tokenizer_lib.load_saved(tmp_path / "saved", ours.digest).encode(texts) == ids
    (tmp_path / "exported").mkdir()
    huggingface_tokenizer.write(ours, tmp_path / "exported", "bert", 16)
    assert read(tmp_path / "exported").encode(texts) == ids
    for text, (same, spans) in zip(texts, ours.encode_with_spans(texts), strict=True):
        assert same == ours.encode([text])[0]
        assert all(0 <= begin <= end <= len(text) for begin, end in spans)


@pytest.mark.parametrize("form", ["added_tokens", "added_tokens_decoder", "zwnj_is_space"])
def test_an_added_token_is_one_id_and_begins_a_word(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path, "english")
    ours = read(tmp_path)
    ids = ours.encode(["[E1] the end"])[0]
    assert ours.pieces(ids[:1]) == ["[E1]"]
    assert ours.starts_word[ids[0]]
    _, spans = ours.encode_with_spans(["[E1] the end"])[0]
    assert tuple(spans[0]) == (0, 4)


def test_a_normaliser_that_bert_does_not_have_is_used(tmp_path: Path) -> None:
    FORMS["zwnj_is_space"](tmp_path, "persian")
    with_mark, with_space = read(tmp_path).encode(
        ["می\u200cخواهم", "می خواهم"]  # noqa: RUF001
    )
    assert with_mark == with_space


@pytest.mark.parametrize("form", FORMS)
def test_a_text_forges_no_special_token(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path, "english")
    ours = read(tmp_path)
    found = ours.encode(["[CLS] good [SEP] [MASK] [PAD]"])[0]
    assert not set(found) & {ours.cls, ours.sep, ours.mask, ours.pad}
    assert ours.encode_with_mask("good [MASK] end").count(ours.mask) == 1


def test_settings_of_berts_normaliser(tmp_path: Path) -> None:
    FORMS["keeps_accents"](tmp_path / "accents", "english")
    assert "é" in "".join(texts_of(read(tmp_path / "accents"), "café"))
    FORMS["bert"](tmp_path / "bert", "english")
    assert "é" not in "".join(texts_of(read(tmp_path / "bert"), "café"))
    # The settings beside a tokenizer.json go before its own, as `transformers` has it.
    huggingface_tokenizer.write(exchanged.wordpiece(), tmp_path, "bert", 16)
    about = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"do_lower_case": False}
    about["strip_accents"] = None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    assert not read(tmp_path).lowercase


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, "'RobertaTokenizer' splits by other rules"),
        (BERT | {"do_basic_tokenize": False}, "do_basic_tokenize is false"),
        (BERT | {"never_split": ["newword"]}, r"never_split=\['newword'\]"),
        (BERT | {"strip_accents": "yes"}, "strip_accents='yes'"),
        (BERT | {"subword_tokenizer_type": "character"}, "subword_tokenizer_type='character'"),
        ({"word_tokenizer_type": "sudachi"}, "word_tokenizer_type='sudachi'"),
        (
            {"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_option": "-o /tmp/x"}},
            "mecab_kwargs=.* is not supported",
        ),
        (
            {"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dic": "jumandic"}},
            "mecab_dic='jumandic'",
        ),
        ({"word_tokenizer_type": "mecab", "do_subword_tokenize": False}, "do_subword_tokenize"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, about: dict[str, Any], said: str
) -> None:
    tokenizer_folders.vocabulary(tmp_path, "japanese", about)
    with pytest.raises(InputError, match=said):
        read(tmp_path)


def test_a_class_that_only_config_json_names_counts(tmp_path: Path) -> None:
    config = {"tokenizer_class": "BertJapaneseTokenizer"}
    about = {"word_tokenizer_type": "jumanpp"}
    tokenizer_folders.vocabulary(tmp_path / "one", "japanese", about, config)
    with pytest.raises(InputError, match="word_tokenizer_type='jumanpp'"):
        read(tmp_path / "one")
    tokenizer_folders.vocabulary(tmp_path / "other", "japanese", {}, config)
    assert isinstance(read(tmp_path / "other"), LibraryTokenizer)


def test_a_vocabulary_of_japanese_words_alone_is_refused(tmp_path: Path) -> None:
    tokenizer_folders.vocabulary(tmp_path, "japanese", {})
    with (tmp_path / "vocab.txt").open("a") as file:
        file.write("".join(f"{a}{b}\n" for a in "東京都日本" for b in "大学生活動"))
    with pytest.raises(InputError, match="pieces of several Chinese characters"):
        read(tmp_path)


def test_an_added_token_with_another_id_is_refused(tmp_path: Path) -> None:
    tokenizer_folders.vocabulary(tmp_path, "english", BERT)
    (tmp_path / "added_tokens.json").write_text('{"[E1]": 3}')
    with pytest.raises(InputError, match=r"'\[E1\]' has the id 3 there, and would be"):
        read(tmp_path)


def test_a_token_that_the_library_file_lacks_is_refused(tmp_path: Path) -> None:
    FORMS["unigram"](tmp_path, "english")
    (tmp_path / "added_tokens.json").write_text('{"another": 9999}')
    with pytest.raises(InputError, match=r"'another' is not in tokenizer\.json"):
        read(tmp_path)


def test_added_tokens_beside_the_vocabulary_are_read(tmp_path: Path) -> None:
    huggingface_tokenizer.write(exchanged.wordpiece(), tmp_path, "bert", 16)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.add_tokens(["tokyotower"])
    library.save(str(tmp_path / "tokenizer.json"))
    assert texts_of(read(tmp_path), "the tokyotower") == ["the", "tokyotower"]
    assert read(tmp_path).size == len(exchanged.PIECES) + 1


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer"])
def test_a_library_file_is_used_as_it_stands(tmp_path: Path, part: str) -> None:
    huggingface_tokenizer.write(exchanged.wordpiece(), tmp_path, "bert", 16)
    path = tmp_path / "tokenizer.json"
    other = {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "WhitespaceSplit"}}[part]
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: other}))
    ours = read(tmp_path)
    assert isinstance(ours, LibraryTokenizer)
    expected = tokenizers.Tokenizer.from_file(str(path))
    for text in ("the Film", "the film!", "TÔKYÔ 東京"):
        assert ours.encode([text])[0] == expected.encode(text, add_special_tokens=False).ids


def test_two_files_with_different_vocabularies_are_refused(tmp_path: Path) -> None:
    huggingface_tokenizer.write(exchanged.wordpiece(), tmp_path, "bert", 16)
    path = tmp_path / "vocab.txt"
    path.write_text(path.read_text().replace("good\nnot\n", "not\ngood\n"))
    with pytest.raises(InputError, match=r"the piece 'good' has the id .* of different networks"):
        read(tmp_path)
