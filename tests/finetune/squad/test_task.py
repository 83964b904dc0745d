"""Answers as spans: metrics worked by hand for both versions, and the official files."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad import task as squad_task
from mobilebert_jax.finetune.task import LoadedTask

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(10)))
SPAN = Squad(
    max_seq_length=12, doc_stride=4, max_query_length=2, max_answer_length=5, n_best_size=20
)
CONTEXT = "w0 w1 w2 w3 w4"
QUESTIONS: tuple[tuple[str, list[str]], ...] = (("q1", ["w1 w2"]), ("q2", ["w4", "w3 w4"]))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return tokenizers.load(path, schema.Tokenizer())


def content(
    asked: Sequence[tuple[str, list[str]]], *, v2: bool, question: str = "w9"
) -> dict[str, Any]:
    """The JSON of a file; a question without answers is unanswerable in v2.0."""
    qas = []
    for name, answers in asked:
        qa: dict[str, Any] = {"id": name, "question": question}
        qa["answers"] = [{"text": a, "answer_start": CONTEXT.index(a)} for a in answers]
        qas.append({**qa, "is_impossible": not answers} if v2 else qa)
    paragraph = {"context": CONTEXT, "qas": qas}
    return {"version": "v2.0" if v2 else "1.1", "data": [{"paragraphs": [paragraph]}]}


def load(
    tokenizer: Tokenizer,
    asked: Sequence[tuple[str, list[str]]] = QUESTIONS,
    *,
    v2: bool = False,
    span: Squad = SPAN,
    dev: dict[str, Any] | None = None,
    test: dict[str, Any] | None = None,
    where: str = "file",
) -> LoadedTask:
    files = {"train": content(asked, v2=v2), "dev": dev or content(asked, v2=v2)}
    if test:
        files["test"] = test
    splits = {split: squad_files.from_json(found, where) for split, found in files.items()}
    return squad_task.load("squad", "SQuAD", splits, tokenizer, span)


def outputs(rows: Rows, *spans: tuple[int, int]) -> np.ndarray:
    """Outputs, [F, 2], that are sure of a start and an end in each row, counted from its [CLS]."""
    made = np.zeros((len(rows.ids_F), 2), np.float32)
    for start, row in zip(rows.starts, spans, strict=False):
        for column, position in enumerate(row):
            made[start + position, column] = 10.0
    return made


def perfect(rows: Rows) -> np.ndarray:
    return outputs(rows, *zip(rows.targets["starts"], rows.targets["ends"], strict=True))


@pytest.mark.parametrize("v2", [False, True])
def test_perfect_outputs_score_100(tokenizer: Tokenizer, v2: bool) -> None:
    asked = (*QUESTIONS, ("q3", [])) if v2 else QUESTIONS
    task = load(tokenizer, asked, v2=v2)
    metrics = task.score({"dev": perfect(task.dev["dev"])})
    names = ("exact", "f1", "best_exact", "best_f1") if v2 else ("exact_match", "f1")
    assert metrics == dict.fromkeys(names, 100.0)
    assert task.main == names[:2]
    assert (task.kind, task.outputs, task.reads, task.length) == ("span", 2, "every", 12)


def test_metrics_of_v1_worked_by_hand(tokenizer: Tokenizer) -> None:
    # [CLS] w9 [SEP] w0 w1 w2 ...: w1 is at 4. q1 says "w1 w2 w3": precision 2/3, recall 1, F1 0.8.
    task = load(tokenizer)
    metrics = task.score({"dev": outputs(task.dev["dev"], (4, 6), (7, 7))})
    assert metrics == pytest.approx({"exact_match": 50.0, "f1": 90.0})


def test_any_of_the_gold_answers_counts(tokenizer: Tokenizer) -> None:
    task = load(tokenizer)
    metrics = task.score({"dev": outputs(task.dev["dev"], (4, 5), (6, 7))})
    assert metrics == {"exact_match": 100.0, "f1": 100.0}


def test_metrics_of_v2_worked_by_hand(tokenizer: Tokenizer) -> None:
    asked = (("q1", ["w1 w2"]), ("q2", []), ("q3", []))
    task = load(tokenizer, asked, v2=True)
    # q1 is right; q2 rightly has no answer; q3 wrongly has one, but with lesser odds than q1.
    made = outputs(task.dev["dev"], (4, 5), (0, 0), (4, 4))
    made[task.dev["dev"].starts[2]] = 4.0
    metrics = task.score({"dev": made})
    # A threshold between q1's odds of -20 and q3's of -12 takes the answer away from q3 alone.
    assert metrics == pytest.approx(
        {"exact": 200 / 3, "f1": 200 / 3, "best_exact": 100.0, "best_f1": 100.0}
    )


def test_the_threshold_of_the_settings_decides_on_no_answer(tokenizer: Tokenizer) -> None:
    asked = (("q1", ["w1 w2"]), ("q2", []))
    span = Squad(**{**vars(SPAN), "null_score_diff_threshold": -15.0})
    task = load(tokenizer, asked, v2=True, span=span)
    made = outputs(task.dev["dev"], (4, 5), (4, 4))
    made[task.dev["dev"].starts[1]] = 4.0  # odds of 8 - 20 = -12, above the threshold
    assert task.score({"dev": made})["exact"] == 100.0


def test_the_files_of_v1_are_the_official_ones(tokenizer: Tokenizer, tmp_path: Path) -> None:
    test = content([("t1", [])], v2=False)
    task = load(tokenizer, test=test)
    task.write(
        tmp_path,
        {"dev": outputs(task.dev["dev"], (4, 6), (7, 7))},
        {"test": outputs(task.test["test"], (3, 3))},
    )
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert names == [
        "dev/nbest_predictions.json",
        "dev/predictions.json",
        "dev/scores.json",
        "test/nbest_predictions.json",
        "test/predictions.json",
    ]
    predictions = json.loads((tmp_path / "dev/predictions.json").read_text())
    assert predictions == {"q1": "w1 w2 w3", "q2": "w4"}
    assert json.loads((tmp_path / "test/predictions.json").read_text()) == {"t1": "w0"}
    best = json.loads((tmp_path / "dev/nbest_predictions.json").read_text())["q1"][0]
    assert (best["text"], best["start_logit"], best["end_logit"]) == ("w1 w2 w3", 10.0, 10.0)
    assert json.loads((tmp_path / "dev/scores.json").read_text()) == pytest.approx(
        {"exact_match": 50.0, "f1": 90.0, "missing": 0.0, "unknown": 0.0}
    )


def test_no_answer_is_an_empty_text_in_the_files_of_v2(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    task = load(tokenizer, (("q1", ["w1 w2"]), ("q2", [])), v2=True)
    task.write(tmp_path, {"dev": outputs(task.dev["dev"], (4, 5), (0, 0))}, {})
    predictions = json.loads((tmp_path / "dev/predictions.json").read_text())
    assert predictions == {"q1": "w1 w2", "q2": ""}
    odds = json.loads((tmp_path / "dev/null_odds.json").read_text())
    assert odds["q1"] == -20.0 and odds["q2"] > 0.0
    scores = json.loads((tmp_path / "dev/scores.json").read_text())
    assert (scores["exact"], scores["HasAns_exact"], scores["NoAns_exact"]) == (100.0,) * 3
    assert (scores["total"], scores["NoAns_total"]) == (2.0, 1.0)


def test_what_was_cut_and_left_out_is_counted_by_split(tokenizer: Tokenizer) -> None:
    dev = content(QUESTIONS, v2=False, question="w9 w8 w7")
    train = (("q1", ["w1"]), ("q2", []))
    task = load(tokenizer, train, dev=dev)
    assert task.notes["questions cut to the query length (dev)"] == 2
    assert task.notes["questions cut to the query length (train)"] == 0
    left_out = "questions left out of training, without an answer in the text (train)"
    assert task.notes[left_out] == 1
    assert task.notes["questions without an answer (train)"] == 1
    assert len(task.train) == 1


def test_identity_follows_rows_gold_answers_and_ids_but_not_the_place(tokenizer: Tokenizer) -> None:
    def identity(task: LoadedTask) -> tuple[str, str]:
        return task.digest, task.settings["questions"]

    same = content(QUESTIONS, v2=False)
    found = identity(load(tokenizer, dev=same))
    assert identity(load(tokenizer, dev=copy.deepcopy(same), where="elsewhere")) == found
    moved = load(tokenizer, dev=content((("q1", ["w0 w1"]), QUESTIONS[1]), v2=False))
    assert moved.digest != found[0]
    # The rows know the first answer only, the score every answer.
    more = load(tokenizer, dev=content((("q1", ["w1 w2", "w1"]), QUESTIONS[1]), v2=False))
    renamed = load(tokenizer, dev=content((("r1", ["w1 w2"]), QUESTIONS[1]), v2=False))
    assert len({identity(task) for task in (moved, more, renamed)} | {found}) == 4
