"""Question answering by a span of a text: SQuAD v1.1, v2.0, and files of the same form."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.artifacts import write_json
from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.squad import answers as squad_answers
from mobilebert_jax.finetune.squad import score as squad_score
from mobilebert_jax.finetune.squad.answers import Answers
from mobilebert_jax.finetune.squad.files import SquadData
from mobilebert_jax.finetune.squad.windows import Windows, windows
from mobilebert_jax.finetune.task import LoadedTask, Outputs, digest_of

PERCENT = ("exact_match", "exact", "f1", "best_exact", "best_f1")
"""Scores that are tabulated; the others are in the file of all scores."""


def load(
    name: str,
    title: str,
    splits: dict[str, SquadData],
    tokenizer: Tokenizer,
    span: Squad,
) -> LoadedTask:
    """Returns the task made of `splits`: `train`, `dev`, and perhaps `test` without answers."""
    v2 = splits["dev"].v2
    cut = {
        split: windows(data, tokenizer, span, training=split == "train")
        for split, data in splits.items()
    }
    rows = {split: _rows(made) for split, made in cut.items()}

    def answers(split: str, outputs: NDArray[np.float32]) -> Answers:
        start_F, end_F = (outputs[:, i].astype(np.float64) for i in range(2))
        return squad_answers.answers(splits[split], cut[split], start_F, end_F, span)

    def all_scores(outputs: Outputs) -> dict[str, float]:
        found = answers("dev", outputs["dev"])
        if not v2:
            return squad_score.score(splits["dev"], found.predictions)
        return squad_score.score(
            splits["dev"], found.spans, found.null_odds, span.null_score_diff_threshold
        )

    def score(outputs: Outputs) -> dict[str, float]:
        return {name: value for name, value in all_scores(outputs).items() if name in PERCENT}

    def write(folder: Path, dev_outputs: Outputs, test_outputs: Outputs) -> None:
        for split, outputs in {**dev_outputs, **test_outputs}.items():
            (folder / split).mkdir(exist_ok=True)
            squad_answers.write(answers(split, outputs), folder / split)
        write_json(folder / "dev" / "scores.json", all_scores(dev_outputs))

    notes: dict[str, int] = {}
    for split, data in splits.items():
        for what, count in {**data.notes, **cut[split].notes}.items():
            notes[f"{what} ({split})"] = count
    asked = [
        (split, list(data.contexts), [question._replace(where="") for question in data.questions])
        for split, data in splits.items()
    ]
    return LoadedTask(
        name=name,
        title=title,
        kind="span",
        labels=(),
        length=span.max_seq_length,
        train=rows.pop("train"),
        dev={"dev": rows.pop("dev")},
        test=rows,
        main=("exact", "f1") if v2 else ("exact_match", "f1"),
        score=score,
        write=write,
        notes=notes,
        settings={"span": vars(span), "questions": digest_of(asked)},
    )


def _rows(made: Windows) -> Rows:
    targets: dict[str, Any] = {"starts": made.answer_start_W, "ends": made.answer_end_W}
    return Rows(made.ids_T, made.starts, made.second_start_W, targets, {})
