"""Tasks of one class, or one number, for a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune import metrics as metrics_lib
from mobilebert_jax.finetune.classification.target_scaling import UNCHANGED, Scale
from mobilebert_jax.finetune.examples import Example, TaskData
from mobilebert_jax.finetune.features import Rows, of_sentences
from mobilebert_jax.finetune.glue import submission
from mobilebert_jax.finetune.task import LoadedTask, Outputs, digest_of


def load(
    name: str,
    title: str,
    data: TaskData[Example],
    tokenizer: Tokenizer,
    length: int,
    metrics: Sequence[str],
    files: Mapping[str, str] | None = None,
    score_range: tuple[float, float] | None = None,
    scale: Scale = UNCHANGED,
) -> LoadedTask:
    """Returns the task made of `data`, whose dev splits are scored by the metrics `metrics`.

    `files` names the file of each test split's predictions, `<split>.tsv` by default; numbers in
    them are kept within `score_range`. Where a dev split has a name of its own a figure is called
    after both, such as `matched accuracy`. Numbers are learnt in the unit of `scale`.
    """
    number = not data.labels
    cut = 0

    def made(examples: Sequence[Example]) -> Rows:
        nonlocal cut
        learnt = [
            found if found.label is None else found._replace(label=scale.learnt(found.label))
            for found in examples
        ]
        rows, shortened = of_sentences(learnt, tokenizer, length, number=number)
        cut += shortened
        return rows

    train = made(data.train)
    dev = {split: made(examples) for split, examples in data.dev.items()}
    test = {split: made(examples) for split, examples in data.test.items() if examples}

    ids = [
        (kind, split, [example.id for example in examples])
        for kind, splits in (("dev", data.dev), ("test", data.test))
        for split, examples in splits.items()
    ]

    def called(split: str, figure: str) -> str:
        return figure if split == "dev" else f"{split} {figure}"

    def scored(examples: Sequence[Example], outputs: NDArray[np.float32]) -> dict[str, float]:
        labels = [example.label or 0.0 for example in examples]
        return metrics_lib.score(metrics, labels, predicted(outputs, number))

    def score(outputs: Outputs) -> dict[str, float]:
        return {
            called(split, figure): value
            for split in dev
            for figure, value in scored(data.dev[split], outputs[split]).items()
        }

    def score_test(outputs: Outputs) -> dict[str, float]:
        return {
            called(split, figure): value
            for split, rows in test.items()
            if "labels" in rows.targets
            for figure, value in scored(data.test[split], outputs[split]).items()
        }

    def write(folder: Path, dev_outputs: Outputs, test_outputs: Outputs) -> None:
        named = {f"dev-{split}.tsv": (data.dev[split], dev_outputs[split]) for split in dev}
        for split, outputs in test_outputs.items():
            file = (files or {}).get(split, f"{split}.tsv")
            named[file] = (data.test[split], outputs)
        for file, (examples, outputs) in named.items():
            ids = [example.id for example in examples]
            values = predicted(outputs, number).tolist()
            submission.write(
                folder / file,
                ids,
                values,
                data.labels or None,
                score_range,
                repeated=file.startswith("dev-"),
            )

    return LoadedTask(
        name=name,
        title=title,
        kind="number" if number else "classes",
        labels=data.labels,
        length=length,
        train=train,
        dev=dev,
        test=test,
        main=tuple(called(split, figure) for split in dev for figure in metrics),
        score=score,
        score_test=score_test,
        scale=scale,
        write=write,
        notes={**data.notes, f"texts cut at {length} tokens": cut},
        settings={
            "metrics": list(metrics),
            "ids": digest_of(ids),
            **({} if scale == UNCHANGED else {"scale": list(scale)}),
        },
    )


def predicted(outputs_NC: NDArray[np.float32], number: bool) -> NDArray:
    """Returns the class, or the number, that each row's outputs stand for, [N]."""
    return outputs_NC[:, 0] if number else outputs_NC.argmax(axis=1)
