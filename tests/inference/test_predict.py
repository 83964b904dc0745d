"""Lines in, answers out, for every kind of network; mistakes are named with their line."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilebert_jax
from mobilebert_jax.inference import __main__ as predict
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.model import Kind
from tests.interop import exchanged
from tests.miniature import ROOT

KINDS: tuple[Kind, ...] = (
    "pretraining",
    "sequence_classification",
    "token_classification",
    "multiple_choice",
    "question_answering",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a network of each kind."""
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        own_format.write(exchanged.make(exchanged.CONFIGS["masks_padding"], kind), folder / kind)
    return folder


@pytest.fixture
def ask(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    def run(text: str | bytes, mode: str, kind: str, *more: str) -> Any:
        """Returns the answers, and where there is a mistake the exit code and message too."""
        content = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code = predict.main((mode, "--model", str(models / kind), *more))
        captured = capsys.readouterr()
        answers = [json.loads(line) for line in captured.out.splitlines()]
        return (code, captured.err, answers) if code else answers

    return run


def test_classes_are_those_of_the_network_and_lines_keep_their_order(
    ask: Any, models: Path
) -> None:
    lines = 'the film was good\n\n{"id": 7, "text": "bad", "second_text": "not good ."}\n'
    first, second = ask(lines, "classify", "sequence_classification")
    model, params, tokenizer, config = mobilebert_jax.load(models / "sequence_classification")
    assert config.num_hidden_layers == 2
    ids = np.array([[tokenizer.cls, *tokenizer.encode(["the film was good"])[0], tokenizer.sep]])
    logits = np.asarray(model(params, ids, np.ones_like(ids), np.zeros_like(ids))["logits"])[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(list(first["scores"].values()), expected, atol=1e-4)
    assert first["label"] == model.labels[int(logits.argmax())]
    assert second["id"] == 7 and "id" not in first


@pytest.mark.parametrize(
    ("mode", "kind", "known", "unknown", "share"),
    [
        ("classify", "sequence_classification", "the film was good", "der Film war gut", 75),
        ("fill-mask", "pretraining", "the film was [MASK]", "der Film war [MASK]", 67),
        ("embed", "pretraining", "the film was good", "der Film war gut", 75),
    ],
)
def test_a_text_that_the_vocabulary_does_not_know_is_told_of(
    models: Path,
    monkeypatch: Any,
    capsys: Any,
    mode: str,
    kind: str,
    known: str,
    unknown: str,
    share: int,
) -> None:
    for text, told in ((known, ""), (unknown, f"does not know {share}% of the tokens")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert predict.main((mode, "--model", str(models / kind))) == 0
        captured = capsys.readouterr()
        assert captured.out
        assert told in captured.err and bool(told) == bool(captured.err)


def test_masks_are_filled_with_the_likeliest_pieces(ask: Any) -> None:
    one, other = ask("the [MASK] was [MASK] .\n[MASK] !", "fill-mask", "pretraining", "--top", "3")
    assert [len(one["masks"]), len(other["masks"])] == [2, 1]
    for guesses in (*one["masks"], *other["masks"]):
        scores = [guess["score"] for guess in guesses]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert all(guess["piece"] in exchanged.PIECES for guess in guesses)


def test_words_get_tags_and_choices_a_winner(ask: Any) -> None:
    (tagged,) = ask('{"words": ["the", "film", "東京"]}', "classify", "token_classification")
    assert tagged["words"] == ["the", "film", "東京"] and tagged["words_left_out"] == 0
    assert set(tagged["tags"]) <= set(exchanged.LABELS["token_classification"])
    long = " ".join(["film"] * 20)
    (cut,) = ask(long, "classify", "token_classification")
    assert len(cut["tags"]) == 14 and cut["words_left_out"] == 6
    choices = ["good", "bad", "not good"]
    (chosen,) = ask(
        json.dumps({"text": "the film was", "choices": choices}), "classify", "multiple_choice"
    )
    assert chosen["choice"] == choices[chosen["index"]]
    assert chosen["index"] == int(np.argmax(chosen["scores"])) and len(chosen["scores"]) == 3


def test_answers_are_spans_of_their_text(ask: Any) -> None:
    context = "The film was wonderful, believable. Tokyo!"
    asked = json.dumps({"id": "q", "question": "was it good?", "context": context})
    found = ask(f"{asked}\n{asked}", "answer", "question_answering", "--length", "16")
    assert found[0] == found[1] and found[0]["id"] == "q"
    assert found[0]["answer"] and found[0]["answer"] in context
    assert found[0]["answers"][0]["text"] == found[0]["answer"]


def test_every_network_gives_vectors(ask: Any) -> None:
    one, other = ask("good\nthe film was not bad", "embed", "question_answering")
    assert [len(one["embedding"]), len(other["embedding"])] == [16, 16]
    (alone,) = ask("good", "embed", "question_answering")
    np.testing.assert_allclose(alone["embedding"], one["embedding"], rtol=1e-3, atol=1e-4)
    (first,) = ask("good", "embed", "question_answering", "--pool", "first")
    assert not np.allclose(first["embedding"], alone["embedding"])


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("a", ("clasify", "sequence_classification"), "the nearest is 'classify'"),
        ("a", ("fill-mask", "sequence_classification"), "needs one for masked lm or pretraining"),
        ("a", ("classify", "pretraining"), "is a network for pretraining"),
        ("a", ("classify", "nothing"), "holds no finished network"),
        ("no blank", ("fill-mask", "pretraining"), "standard input:1: the sentence"),
        ("film " * 20 + "[MASK]", ("fill-mask", "pretraining"), "but 16 are allowed"),
        ('\n{"txt": "a"}', ("classify", "sequence_classification"), "standard input:2: no field"),
        ('{"text": 3}', ("classify", "sequence_classification"), "must be a text"),
        ('{"text": ', ("classify", "sequence_classification"), "1 is not JSON"),
        (
            '{"id": "\\ud800", "text": "a"}',
            ("embed", "pretraining"),
            "1: holds half of a surrogate",
        ),
        ('{"a": ' + "[" * 100_000, ("embed", "pretraining"), "1 cannot be read as JSON"),
        ('{"a": ' + "1" * 5000 + "}", ("embed", "pretraining"), "1 cannot be read as JSON"),
        ("{}", ("answer", "question_answering", "--length", "4"), "must be at least 5 for answer"),
        ('{"text": "a"}', ("classify", "multiple_choice"), "'choices' must be a list of texts"),
        ("a", ("classify", "sequence_classification", "--length", "99"), "must lie in 4 to 16"),
        ("a", ("embed", "pretraining", "--pool", "max"), "must be one of mean, first"),
        ("a", ("embed", "pretraining", "--top", "0"), "must be at least 1"),
    ],
)
def test_mistakes_are_named(ask: Any, text: str, arguments: tuple[str, ...], said: str) -> None:
    code, error, answers = ask(text, *arguments)
    assert code == 2 and said in error and not answers, error


@pytest.mark.parametrize("mistake", [b"\xff", b'{"txt": "a"}'])
def test_answers_to_lines_before_a_mistake_stay(ask: Any, mistake: bytes) -> None:
    lines = b"\n".join((b"good", b"bad", mistake, b"film"))
    code, error, answers = ask(lines, "classify", "sequence_classification")
    assert code == 2 and "standard input:3: " in error and len(answers) == 2


def test_a_number_is_one_and_tags_without_names_have_numbers(ask: Any, models: Path) -> None:
    config = exchanged.CONFIGS["masks_padding"]
    number = exchanged.make(config, "sequence_classification", ("toxicity",))
    own_format.write(number, models / "number")
    (found,) = ask("the film", "classify", "number")
    assert set(found) == {"value"}
    tags = exchanged.make(config, "token_classification")._replace(labels=())
    own_format.write(tags, models / "unnamed")
    (found,) = ask("the film", "classify", "unnamed")
    assert set(found["tags"]) <= {f"LABEL_{i}" for i in range(4)} and len(found["tags"]) == 2


def test_a_second_text_needs_a_second_type_of_segment(ask: Any, models: Path) -> None:
    config = dataclasses.replace(exchanged.CONFIGS["masks_padding"], type_vocab_size=1)
    for kind in ("sequence_classification", "question_answering", "multiple_choice"):
        own_format.write(exchanged.make(config, kind), models / f"{kind}_1")
    pair = 'good\n{"text": "good", "second_text": "bad"}'
    for mode, kind in (
        ("classify", "sequence_classification_1"),
        ("embed", "question_answering_1"),
    ):
        code, error, answers = ask(pair, mode, kind)
        assert code == 2 and "standard input:2: a second text needs" in error, error
        assert len(answers) == 1
    for mode, kind in (("answer", "question_answering_1"), ("classify", "multiple_choice_1")):
        code, error, _ = ask("{}", mode, kind)
        assert code == 2 and "this one has type_vocab_size=1" in error, error


def test_what_is_no_number_is_no_answer(ask: Any) -> None:
    line = '{"id": NaN, "text": "good"}'
    code, error, _ = ask(line, "classify", "sequence_classification")
    assert code == 2 and "standard input:1: the answer, or the id given, holds" in error


def test_a_manifest_of_another_program_is_in_nobodys_way(ask: Any, models: Path) -> None:
    path = models / "sequence_classification" / "manifest.json"
    try:
        for content in ("[]", '{"science": 3}', '{"stage": "distill"}'):
            path.write_text(content)
            assert len(ask("good", "classify", "sequence_classification")) == 1
        path.write_text("{")
        code, error, _ = ask("good", "classify", "sequence_classification")
        assert code == 2 and "manifest.json: not JSON" in error
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("redirected", "code", "message"),
    [
        ("</dev/null >&-", 2, "error: stdout is closed"),
        ("<&-", 2, "error: stdin is closed"),
        pytest.param(
            "<<<'a [MASK]' >/dev/full", 1, "No space left on device", marks=pytest.mark.slow
        ),
        pytest.param("< <(yes 'a [MASK]') | head -n 1", 0, "", marks=pytest.mark.slow),
    ],
)
def test_it_ends_as_a_unix_filter_does(
    models: Path, redirected: str, code: int, message: str
) -> None:
    command = f"{sys.executable} -m mobilebert_jax.inference fill-mask --model {models}/pretraining"
    ended = subprocess.run(
        ["bash", "-c", f"{command} {redirected}"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == code
    assert message in ended.stderr and "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_ctrl_c_ends_it_without_a_traceback(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "_answerer", interrupted)
    monkeypatch.setattr(predict, "_discard_output", lambda: None)
    assert ask("a", "embed", "pretraining") == (130, "", [])
