import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import sentencepiece
from hypothesis import strategies
from tokenizers.implementations import BertWordPieceTokenizer

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer, tokenizer_base, wordpiece
from mobilebert_jax.data.sentencepiece import SentencePiece
from mobilebert_jax.data.wordpiece import WordPiece

KINDS = ("wordpiece", "sentencepiece_unigram", "sentencepiece_bpe")
LINES = [
    f"The {adjective} {noun} {verb} near a {place}, and nobody was {adjective}ly surprised."
    for adjective in ("quiet", "clever", "sudden", "careless", "bright")
    for noun in ("teacher", "student", "painter", "sailor", "baker", "farmer")
    for verb in ("sleeps", "waits", "dances", "whispered", "walked", "returned")
    for place in ("harbour", "village", "mountain", "library", "market")
]
TRAIN_AND_PRINT = """
import sys
from pathlib import Path
from mobilebert_jax.config import schema
from mobilebert_jax.data import tokenizer
lines = Path(sys.argv[1]).read_text().splitlines()
settings = schema.Tokenizer(kind=sys.argv[2], vocab_size=160)
print(tokenizer.train(lines, settings, Path(sys.argv[3])).digest)
"""


def settings(kind: str, **changes) -> schema.Tokenizer:
    return schema.Tokenizer(kind=kind, **{"vocab_size": 160, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, tokenizer.Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {kind: tokenizer.train(LINES, settings(kind), folder / kind) for kind in KINDS}


def write_vocabulary(path: Path, pieces: list[str]) -> Path:
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_same_bytes_in_other_processes(trained, kind, tmp_path):
    (tmp_path / "text").write_text("\n".join(LINES))
    digests = set()
    for threads in ("1", "3"):
        command = [sys.executable, "-c", TRAIN_AND_PRINT, str(tmp_path / "text"), kind]
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        run = subprocess.run(
            [*command, str(tmp_path / threads)],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(run.stdout.strip())
    assert digests == {trained[kind].digest}


def test_wordpiece_training_merges_what_is_frequent(trained):
    pieces = trained["wordpiece"].pieces(range(trained["wordpiece"].size))
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(pieces)) == len(pieces) == 160
    assert {"the", "nobody", "surprised"} <= set(pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_come_from_the_vocabulary(trained, kind):
    made = trained[kind]
    assert made.pieces(made.special_ids) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(made.special_ids)) == 5


def test_special_ids_may_stand_anywhere(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", ["a", "[MASK]", "##b", "[SEP]", "[UNK]",
                                                     "[PAD]", "[CLS]"])  # fmt: skip
    made = tokenizer.load(path, settings("wordpiece"))
    assert (made.pad, made.unk, made.cls, made.sep, made.mask) == (5, 4, 6, 3, 1)
    assert made.encode(["ab ac"]) == [[0, 2, 4]]


@pytest.mark.parametrize("kind", KINDS)
def test_text_cannot_spell_special_tokens(trained, kind):
    made = trained[kind]
    (ids,) = made.encode(["The [MASK] [CLS] teacher [SEP][PAD] <mask> sleeps."])
    assert not set(ids) & {made.pad, made.cls, made.sep, made.mask}


def test_text_cannot_spell_the_mask_of_a_foreign_model(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=120, hard_vocab_limit=False,
        pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["<mask>"], minloglevel=2,
    )  # fmt: skip
    (tmp_path / "foreign.model").write_bytes(model.getvalue())
    made = tokenizer.load(tmp_path / "foreign.model", settings("sentencepiece_unigram"))
    assert made.pieces([made.mask, made.pad]) == ["<mask>", "<pad>"]
    assert made.mask not in made.encode(["The <mask> sleeps."])[0]
    assert made.encode_with_mask("The <mask> sleeps.").count(made.mask) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_loads_as_itself(trained, kind, tmp_path):
    trained[kind].save(tmp_path)
    loaded = tokenizer.load(tmp_path, schema.Tokenizer())
    assert loaded.kind == kind
    assert loaded.digest == trained[kind].digest
    assert loaded.encode(LINES[:20]) == trained[kind].encode(LINES[:20])


def test_digest_depends_on_vocabulary_and_settings(trained, tmp_path):
    trained["wordpiece"].save(tmp_path)
    vocab = tmp_path / "vocab.txt"
    digests = {trained["wordpiece"].digest}
    (tmp_path / "tokenizer.json").unlink()
    digests.add(tokenizer.load(vocab, settings("wordpiece", lowercase=False)).digest)
    vocab.write_text(vocab.read_text() + "extra\n")
    digests.add(tokenizer.load(vocab, settings("wordpiece")).digest)
    assert len(digests) == 3


@hypothesis.given(
    strategies.lists(
        strategies.text(
            strategies.one_of(
                strategies.sampled_from("teacher's Σigma  é\u0301\t\u3000漢字-.,)\u200d\x85\x1c"),
                strategies.characters(codec="utf-8"),
            ),
            max_size=40,
        ),
        max_size=4,
    )
)
@hypothesis.settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_agrees_with_the_library_on_any_text(trained, lowercase, texts):
    # The library takes these for the tokens themselves, which text must not be able to forge.
    special = [spelling for names in tokenizer_base.SPECIAL_TOKENS.values() for spelling in names]
    hypothesis.assume(not any(spelling in text for text in texts for spelling in special))
    pieces = trained["wordpiece"].pieces(range(trained["wordpiece"].size))
    vocab = {piece: i for i, piece in enumerate([*pieces, *"漢字é'-Σσ"])}
    content = "".join(f"{piece}\n" for piece in vocab).encode()
    made = WordPiece(content, lowercase, "test")
    library = BertWordPieceTokenizer(vocab, lowercase=lowercase, strip_accents=lowercase)
    expected = [library.encode(text, add_special_tokens=False).ids for text in texts]
    assert made.encode(texts) == expected


AWKWARD = [
    "", " ", "The  teacher\tsleeps .", "Cafe\u0301 na\u00efve \u0130x", "\u0301 \u0301a",
    "\u682a\u5f0f\u4f1a\u793e\u6f22\u5b57\u304b\u3099", "a\x00b\x01 \x7f c\u200bd\ufeff",
    "\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd!", "\ufb01ne \u337f \uff11\uff12 \ud55c\uad6d",
    "\u0645\u064f\u062d\u064e\u0645\u064e\u0651\u062f", "\u00a0\u3000 x \u2028y", "\ufffd\ue000",
    "[MASK][CLS] <mask>",
]  # fmt: skip


def check_spans(made, texts):
    """Spans hold no space at their ends, and do not go back."""
    found = made.encode_with_spans(texts)
    assert [ids for ids, _ in found] == made.encode(texts)
    for text, (ids, spans) in zip(texts, found, strict=True):
        assert spans.dtype == np.int32
        assert spans.shape == (len(ids), 2)
        assert (spans[1:] >= spans[:-1]).all()
        assert all(0 <= begin <= end <= len(text) for begin, end in spans)
        assert all(text[a:b] == text[a:b].strip() for a, b in spans)
        assert not set(ids) & {made.pad, made.cls, made.sep, made.mask}


@pytest.mark.parametrize("kind", KINDS)
def test_spans_come_with_the_same_ids_on_awkward_text(trained, kind, monkeypatch):
    monkeypatch.setattr(wordpiece, "_SPAN_TEXTS", 5)
    check_spans(trained[kind], [*AWKWARD, *LINES[:3]])


@hypothesis.given(
    strategies.text(
        strategies.one_of(
            strategies.sampled_from(
                "the teacher's \u00e9\u0301\t\u3000\u6f22\u5b57-\u200d\x85\ufb01\u337f\U0001f469"
            ),
            strategies.characters(codec="utf-8"),
        ),
        max_size=40,
    )
)
@hypothesis.settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
def test_spans_come_with_the_same_ids_on_any_text(trained, kind, text):
    (ids,) = trained[kind].encode([text])
    ((same, spans),) = trained[kind].encode_with_spans([text])
    assert same == ids
    assert ((spans[:, 0] >= 0) & (spans[:, 0] <= spans[:, 1]) & (spans[:, 1] <= len(text))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_spans_are_the_text_of_the_pieces(trained, kind):
    made = trained[kind]
    text = "The  quiet teacher, \u00e9"
    ((ids, spans),) = made.encode_with_spans([text])
    for piece, (begin, end) in zip(made.pieces(ids), spans, strict=True):
        letters = piece.removeprefix("##").removeprefix("\u2581")
        assert piece == "[UNK]" or text[begin:end].lower() == letters
    assert "".join(text[begin:end] for begin, end in spans) == text.replace(" ", "")


def test_wordpiece_spans_count_characters_of_the_original(tmp_path):
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "cafe",
        "ab",
        "\u6771",
        "\u4eac",
        "mask",
    ]
    path = write_vocabulary(tmp_path / "vocab.txt", [*pieces, "[", "]"])
    made = tokenizer.load(path, settings("wordpiece"))
    text = "Cafe\u0301  \u6771\u4eac a\x00B [MASK] \U0001f469"
    ((ids, spans),) = made.encode_with_spans([text])
    assert made.pieces(ids) == ["cafe", "\u6771", "\u4eac", "ab", "[", "mask", "]", "[UNK]"]
    cut = [text[begin:end] for begin, end in spans]
    assert cut == ["Cafe", "\u6771", "\u4eac", "a\x00B", "[", "MASK", "]", "\U0001f469"]


def test_sentencepiece_spans_survive_normalisation(tmp_path):
    made = tokenizer.train(
        ["fine \u682a\u5f0f\u4f1a\u793e 12 the quiet teacher sleeps"] * 20,
        settings("sentencepiece_bpe", vocab_size=48), tmp_path,
    )  # fmt: skip
    text = "  \ufb01ne   \u337f \uff11\uff12 "
    ((ids, spans),) = made.encode_with_spans([text])
    for piece, (begin, end) in zip(made.pieces(ids), spans, strict=True):
        assert piece.removeprefix("\u2581") in unicodedata.normalize("NFKC", text[begin:end])
    covered = {i for begin, end in spans for i in range(begin, end)}
    assert covered == {i for i, character in enumerate(text) if character != " "}
    assert len({tuple(span) for span in spans.tolist()}) < len(ids)


def test_a_byte_of_a_character_stands_for_the_character(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=340, byte_fallback=True,
        hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, minloglevel=2,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
    )  # fmt: skip
    (tmp_path / "bytes.model").write_bytes(model.getvalue())
    made = tokenizer.load(tmp_path / "bytes.model", settings("sentencepiece_unigram"))
    text = "The \U0001f469 sleeps"
    ((ids, spans),) = made.encode_with_spans([text])
    bytes_of_emoji = [i for i, piece in enumerate(made.pieces(ids)) if piece[0] == "<"]
    assert len(bytes_of_emoji) == 4
    assert spans[bytes_of_emoji].tolist() == [[4, 5]] * 4


def test_wordpiece_gives_up_on_words_beyond_200_characters(tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path = write_vocabulary(tmp_path / "vocab.txt", [*special, "a", "##a"])
    made = tokenizer.load(path, settings("wordpiece"))
    assert made.encode(["a" * 200, "a" * 201]) == [[5] + [6] * 199, [made.unk]]


def test_forgetting_words_changes_no_id(trained, tmp_path, monkeypatch):
    expected = trained["wordpiece"].encode(LINES)
    trained["wordpiece"].save(tmp_path)
    fresh = tokenizer.load(tmp_path, settings("wordpiece"))
    monkeypatch.setattr(wordpiece, "_MEMO_CHARACTERS", 30)
    assert [fresh.encode([line])[0] for line in LINES] == expected
    assert fresh._memo_characters < 100


@pytest.mark.parametrize("together", [2, 7])
def test_words_learned_together_have_the_ids_of_each_alone(
    trained, tmp_path, monkeypatch, together
):
    trained["wordpiece"].save(tmp_path)
    monkeypatch.setattr(wordpiece, "_JOINED_WORDS", 1)
    expected = tokenizer.load(tmp_path, settings("wordpiece")).encode([*LINES, *AWKWARD])
    monkeypatch.setattr(wordpiece, "_JOINED_WORDS", together)
    assert tokenizer.load(tmp_path, settings("wordpiece")).encode([*LINES, *AWKWARD]) == expected


def test_lowercase_is_obeyed(tmp_path):
    cased = tokenizer.train(LINES, settings("wordpiece", lowercase=False), tmp_path / "cased")
    assert cased.encode(["The"]) != cased.encode(["the"])
    uncased = tokenizer.train(LINES, settings("wordpiece"), tmp_path / "uncased")
    assert uncased.encode(["Thé"]) == uncased.encode(["the"])


@pytest.mark.parametrize("kind", KINDS)
def test_words_start_where_they_do_in_the_text(trained, kind):
    made = trained[kind]
    text = "the quiet baker returned near a mountain"
    (ids,) = made.encode([text])
    assert made.starts_word.dtype == bool
    assert made.starts_word.shape == (made.size,)
    assert made.starts_word[ids].sum() == len(text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_in_a_sentence_takes_the_place_of_a_word(trained, kind):
    made = trained[kind]
    ids = made.encode_with_mask("the [MASK] teacher [MASK], and")
    (before,), (middle,) = made.encode(["the"]), made.encode(["teacher"])
    assert ids[: len(before) + 1] == [*before, made.mask]
    assert ids[len(before) + 1 :][: len(middle) + 1] == [*middle, made.mask]
    after = ids[len(before) + len(middle) + 2 :]
    assert made.pieces(after)[0] == ","
    with pytest.raises(InputError, match=r"has no mask; write \[MASK\]"):
        made.encode_with_mask("the teacher")


def test_a_missing_special_token_is_named(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", ["[PAD]", "[UNK]", "[CLS]", "a"])
    with pytest.raises(InputError, match=r"vocab.txt.*no special token \[SEP\].*\[MASK\]"):
        tokenizer.load(path, settings("wordpiece"))


def test_a_broken_vocabulary_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8 at byte 6"):
        tokenizer.load(tmp_path / "vocab.txt", settings("wordpiece"))


def test_a_wrong_path_or_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        tokenizer.load(tmp_path / "none.txt", settings("wordpiece"))
    (tmp_path / "a.model").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"set tokenizer\.kind=sentencepiece_unigram"):
        tokenizer.load(tmp_path / "a.model", settings("wordpiece"))
    with pytest.raises(InputError, match="not a SentencePiece model"):
        tokenizer.load(tmp_path / "a.model", settings("sentencepiece_bpe"))


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_no_vocabulary_can_be_made_of_is_refused(tmp_path, kind):
    with pytest.raises(InputError, match=r"empty|no words"):
        tokenizer.train([], settings(kind), tmp_path)


def test_a_vocabulary_too_small_for_the_characters_is_refused(tmp_path):
    with pytest.raises(InputError, match="vocab_size=20"):
        tokenizer.train(LINES, settings("sentencepiece_bpe", vocab_size=20), tmp_path)


def test_endless_words_take_no_part_in_training(tmp_path):
    endless = ["a" * 2_000_000, "ab" * 100_000]
    with_them = tokenizer.train([*LINES, *endless], settings("wordpiece"), tmp_path / "a")
    without = tokenizer.train(LINES, settings("wordpiece"), tmp_path / "b")
    assert with_them.digest == without.digest


def test_blank_and_repeated_lines_are_read_as_bert_reads_them(tmp_path):
    specials = [names[0] for names in tokenizer_base.SPECIAL_TOKENS.values()]
    path = write_vocabulary(tmp_path / "vocab.txt", [*specials, "tea", "", "rain", "tea"])
    made = tokenizer.load(path, settings("wordpiece"))
    assert made.size == 9 and made.encode(["tea rain"]) == [[8, 7]]
    assert made.pieces([5, 6, 7, 8]) == ["tea", "", "rain", "tea"]
    blank, repeated = made.oddities
    assert "1 blank lines, the first line 7" in blank
    assert "1 pieces occur again later, the first on lines 6 and 9; the later id" in repeated


def test_a_byte_order_mark_is_no_part_of_the_first_piece(tmp_path):
    specials = [names[0] for names in tokenizer_base.SPECIAL_TOKENS.values()]
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(f"{p}\n" for p in [*specials, "tea"]).encode())
    made = tokenizer.load(path, settings("wordpiece"))
    assert made.pad == 0 and made.encode(["tea"]) == [[5]] and made.oddities == []


def test_a_sentencepiece_model_with_a_piece_that_is_no_text_is_refused(trained):
    content = trained["sentencepiece_unigram"].content.replace(b"[PAD]", b"\x80PAD]")
    with pytest.raises(InputError, match="a piece is not UTF-8"):
        SentencePiece(content, "sentencepiece_unigram", True, "a model")
