"""Tokenizers against `transformers`: the same ids for every sentence, from every form of folder."""

from pathlib import Path

import pytest

from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.interop.huggingface import tokenizer as huggingface_tokenizer
from tests.interop.huggingface import sentences
from tests.interop.huggingface.tokenizer_folders import FORMS, JAPANESE

pytestmark = pytest.mark.parity

LANGUAGES = ("english", "persian", "japanese")
CASES = [(form, language) for form in FORMS for language in LANGUAGES]
CASES += [(form, "japanese") for form in JAPANESE]


@pytest.mark.parametrize(("form", "language"), CASES)
def test_ids_are_those_of_transformers(tmp_path: Path, form: str, language: str) -> None:
    import transformers

    (FORMS | JAPANESE)[form](tmp_path / "published", language)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "published")
    ours = huggingface_tokenizer.read(tmp_path / "published")
    assert ours is not None
    texts = sentences.of(language)
    expected = [theirs.encode(text, add_special_tokens=False) for text in texts]
    found = ours.encode(texts)
    differing = [(t, f, e) for t, f, e in zip(texts, found, expected, strict=True) if f != e]
    assert differing == []
    assert len({i for ids in found for i in ids}) > 20, "too few tokens to tell anything"

    # Spans lie in the text as it was, and say where each token came from.
    for text, (ids, spans) in zip(texts, ours.encode_with_spans(texts), strict=True):
        assert ids == ours.encode([text])[0]
        assert all(0 <= begin <= end <= len(text) for begin, end in spans)

    # Saved here and exported again, it is the same tokenizer.
    ours.save(tmp_path / "saved")
    assert tokenizer_lib.load_saved(tmp_path / "saved", ours.digest).encode(texts) == found
    (tmp_path / "exported").mkdir()
    huggingface_tokenizer.write(ours, tmp_path / "exported", "bert", 128)
    again = huggingface_tokenizer.read(tmp_path / "exported")
    assert again is not None and again.encode(texts) == found
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert [exported.encode(text, add_special_tokens=False) for text in texts] == expected
    mask = ours.encode_with_mask(f"{texts[0].strip()} [MASK]")
    assert mask[-1] == ours.mask == exported.mask_token_id
