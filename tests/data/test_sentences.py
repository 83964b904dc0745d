# ruff: noqa: RUF001 -- the characters that look alike are what is tested
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.data import sentences

_SIGNS = ". ! ? … 。 ！ ？ ؟ ۔ । \" ' ” ’ ) ] 」 ( [ “ 「 A b 7 é я 家 م"
_WORDS = ["Dr.", "e.g.", "U.S.", "No. 5", "J. R. R. T", "the", "The", "...", "\x1c", "\u2028"]
_PIECES = st.sampled_from([*_SIGNS.split(), *_WORDS, " ", "  ", "\t", "\u00a0"])
_TEXT = st.one_of(st.text(), st.lists(_PIECES, max_size=40).map("".join))


def _solid(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(_TEXT)
def test_no_character_is_lost(text: str) -> None:
    assert _solid("".join(sentences.split(text))) == _solid(text)


@given(_TEXT)
def test_sentences_are_stripped_and_not_empty(text: str) -> None:
    assert all(piece and piece == piece.strip() for piece in sentences.split(text))


@pytest.mark.parametrize(
    "expected",
    [
        ["It rains.", "We stay."],
        ["Is it?", "Yes!", '"No."', "(Never.)", "Ok... fine."],
        ["He said “Go.”", "She went."],
        ["Dr. A. B. Smith met Mrs. Jones at St. Paul vs. Minneapolis.", "They left."],
        ["See Fig. 3 and vol. 2, pp. 7.", "Then e.g. Kant and i.e. Hegel."],
        ["He was born in the U.S.", "His father was not."],
        ["She left the U.S. Army for Ford Co. Detroit.", "In Roe v. Wade it was said."],
        ["It costs 3.50 or 1.234.567,8 in v2.0.1 of example.com today.", "Good."],
        ["1. The first point.", "2. The second."],
        ["ok.", "Ένα.", "Два."],
    ],
)
def test_borders_in_text_with_latin_stops(expected: list[str]) -> None:
    assert sentences.split(" ".join(expected)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("今日は雨。明日は？晴れ！", ["今日は雨。", "明日は？", "晴れ！"]),
        ("「そうだ。」と彼は言った。次。", ["「そうだ。」と彼は言った。", "次。"]),
        ("他说：“你好。”我说好。", ["他说：“你好。”", "我说好。"]),
        ("यह है। वह नहीं है॥", ["यह है।", "वह नहीं है॥"]),
        ("کیا یہ ہے؟ ہاں۔ اچھا", ["کیا یہ ہے؟", "ہاں۔", "اچھا"]),
        ("باران آمد. ما رفتیم.", ["باران آمد.", "ما رفتیم."]),
        ("", []),
        (" \t ", []),
    ],
)
def test_borders_in_other_scripts(line: str, expected: list[str]) -> None:
    assert sentences.split(line) == expected


@pytest.mark.parametrize("unit", [".", "。", ". ", '?"', ".(", "A. ", "।"])
def test_time_grows_with_the_line_and_not_with_its_square(unit: str) -> None:
    start = time.process_time()
    sentences.split(unit * 100_000)
    assert time.process_time() - start < 5
