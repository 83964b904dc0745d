"""Attacks on what reads texts: corpora, vocabularies, lines of requests."""

import gzip
from pathlib import Path

import pytest
import zstandard
from hypothesis import strategies as st

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, python_docs, tokenizer
from mobilebert_jax.data.sentencepiece import SentencePiece
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.inference import requests
from mobilebert_jax.interop.huggingface import sentencepiece as sentencepiece_model
from tests.fuzz.attack import attack
from tests.fuzz.mutations import damaged, damaged_json
from tests.interop import exchanged

pytestmark = pytest.mark.fuzz

TEXTS = {
    "text": b"One sentence. Another one.\nA third.\n\nA second document\nof two lines.\n",
    "wikiextractor": b'<doc id="1" url="u" title="T">\nT\n\nWords of T.\n</doc>\n'
    b'<doc id="2" url="u" title="S">\nS\n\nWords of S.\n</doc>\n',
    "jsonl": b'{"text": "One sentence.\\nAnother one."}\n\n{"id": 2, "text": "caf\\u00e9"}\n',
}
PACKINGS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def read_corpus(spec: str) -> None:
    """Reads all of a source, in small shards; fails for a line that is blank or no text."""
    (source,) = corpus.parse_sources(spec)
    for shard in corpus.plan_shards(source, 40):
        for document in corpus.read(shard):
            assert document.lines
            for line in document.lines:
                assert line.strip()
                line.encode()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("ending", PACKINGS)
def test_corpora(request: pytest.FixtureRequest, tmp_path: Path, kind: str, ending: str) -> None:
    path = tmp_path / f"text{ending}"
    packed = PACKINGS[ending](TEXTS[kind])
    # Damage inside of the packing, and damage of the packing itself.
    cases = damaged([TEXTS[kind]]).map(PACKINGS[ending]) | damaged([packed])

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        read_corpus(f"{kind}:{path}")

    attack(request, cases, attempt)


@pytest.fixture(scope="module")
def sentencepiece_content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sentencepiece")
    lines = [f"{a} {b}" for a in exchanged.PIECES[8:] for b in exchanged.PIECES[8:]]
    settings = schema.Tokenizer(kind="sentencepiece_unigram", vocab_size=40)
    tokenizer.train(lines, settings, folder)
    return (folder / "sentencepiece.model").read_bytes()


SENTENCES = ("the film was unbelievable!", "東京 \u0301\u200d", "[MASK] ##ful", "")


def test_wordpiece_vocabularies(request: pytest.FixtureRequest) -> None:
    content = "".join(f"{piece}\n" for piece in exchanged.PIECES).encode()

    def attempt(content: bytes) -> None:
        made = WordPiece(content, True, "a vocabulary")
        for ids in made.encode(SENTENCES):
            assert all(0 <= one < made.size for one in ids)

    attack(request, damaged([content, content.replace(b"\n", b"\r\n")]), attempt)


def test_sentencepiece_models(request: pytest.FixtureRequest, sentencepiece_content: bytes) -> None:
    def attempt(content: bytes) -> None:
        made = SentencePiece(content, "sentencepiece_unigram", True, "a model")
        for ids in made.encode(SENTENCES):
            assert all(0 <= one < made.size for one in ids)

    attack(request, damaged([sentencepiece_content]), attempt)


def test_sentencepiece_models_of_others(
    request: pytest.FixtureRequest, sentencepiece_content: bytes
) -> None:
    def attempt(content: bytes) -> None:
        sentencepiece_model.library(sentencepiece_model.parse(content, "a model"), 0)

    attack(request, damaged([sentencepiece_content]), attempt)


def test_saved_tokenizers(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    saved = exchanged.wordpiece()
    saved.save(tmp_path)
    names = ("vocab.txt", "tokenizer.json")
    whole = {name: (tmp_path / name).read_bytes() for name in names}
    cases = st.sampled_from(names).flatmap(
        lambda name: st.tuples(st.just(name), damaged([whole[name]]))
    )

    def attempt(case: tuple[str, bytes]) -> None:
        for name in names:
            (tmp_path / name).write_bytes(whole[name])
        (tmp_path / case[0]).write_bytes(case[1])
        found = tokenizer.load_saved(tmp_path, saved.digest)
        assert found.encode(SENTENCES) == saved.encode(SENTENCES)

    attack(request, cases, attempt)


def test_requests(request: pytest.FixtureRequest) -> None:
    content = b'a plain text\n{"text": "one", "second_text": "two"}\n\n{"question": "a", "id": 1}\n'

    def attempt(content: bytes) -> None:
        for item in requests.read(content.splitlines(keepends=True), "standard input"):
            for name in ("text", "second_text", "question"):
                try:
                    item.text(name).encode()
                except InputError:
                    continue

    attack(request, damaged([content]), attempt)


def test_python_modules(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    content = b'"""A module.\n\nIt has a docstring of two paragraphs.\n"""\n\ndef f(x):\n'
    content += b'    r"""Return `x`.\n\n    >>> f(1)\n    1\n    """\n    return x\n'
    path = tmp_path / "module.py"

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        for _, lines in python_docs.documents("module", str(path)):
            assert all(line.strip() for line in lines)

    attack(request, damaged([content]), attempt)


def test_json_records(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        read_corpus(f"jsonl:{path}#body")

    attack(request, damaged_json([{"body": "Some text.", "more": [1, {"a": None}]}]), attempt)
