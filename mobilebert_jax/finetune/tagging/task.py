"""Tasks of one tag for each word, scored by whole entities, or by words where there are none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune import metrics
from mobilebert_jax.finetune.examples import Tagged, TaskData
from mobilebert_jax.finetune.features import Rows, of_words
from mobilebert_jax.finetune.tagging.conll import OUTSIDE
from mobilebert_jax.finetune.task import LoadedTask, Outputs, digest_of


def load(
    name: str, title: str, data: TaskData[Tagged], tokenizer: Tokenizer, length: int
) -> LoadedTask:
    """Returns the task made of `data`; words that were cut off are predicted to be outside (O).

    Tags without `O` that are not those of entities, such as parts of speech, are scored by their
    accuracy. Raises InputError for other tags beside `O`.
    """
    of_entities = _are_of_entities(data)
    train, cut = of_words(data.train, tokenizer, length)
    others = {
        kind: {split: of_words(found, tokenizer, length) for split, found in splits.items()}
        for kind, splits in (("dev", data.dev), ("test", data.test))
    }
    cut += sum(shortened for made in others.values() for _, shortened in made.values())
    dev, test = ({split: rows for split, (rows, _) in made.items()} for made in others.values())

    def scored(
        sentences: Sequence[Tagged], rows: Rows, outputs: NDArray[np.float32]
    ) -> dict[str, float]:
        gold = [[data.labels[tag] for tag in sentence.tags] for sentence in sentences]
        found = tags_of(sentences, rows, outputs, data.labels)
        if of_entities:
            return metrics.entity_f1(gold, found)
        pairs = [
            said == true
            for tags, golds in zip(found, gold, strict=True)
            for said, true in zip(tags, golds, strict=True)
        ]
        return {"accuracy": 100.0 * sum(pairs) / len(pairs)}

    def score(outputs: Outputs) -> dict[str, float]:
        return scored(data.dev["dev"], dev["dev"], outputs["dev"])

    def score_test(outputs: Outputs) -> dict[str, float]:
        return {
            f"{split} {name}": value
            for split, rows in test.items()
            if all(sentence.tags for sentence in data.test[split])
            for name, value in scored(data.test[split], rows, outputs[split]).items()
        }

    def write(folder: Path, dev_outputs: Outputs, test_outputs: Outputs) -> None:
        for kind, outputs in (("dev", dev_outputs), ("test", test_outputs)):
            for split, values in outputs.items():
                sentences = (data.dev if kind == "dev" else data.test)[split]
                rows = (dev if kind == "dev" else test)[split]
                text = "\n".join(
                    "".join(f"{w}\t{t}\n" for w, t in zip(sentence.words, tags, strict=True))
                    for sentence, tags in zip(
                        sentences, tags_of(sentences, rows, values, data.labels), strict=True
                    )
                )
                (folder / f"{kind}-{split}.conll").write_text(text, encoding="utf-8")

    words = [
        (kind, split, [(sentence.words, sentence.tags) for sentence in sentences])
        for kind, splits in (("dev", data.dev), ("test", data.test))
        for split, sentences in splits.items()
    ]
    return LoadedTask(
        name=name,
        title=title,
        kind="tags",
        labels=data.labels,
        length=length,
        train=train,
        dev=dev,
        test=test,
        main=("f1",) if of_entities else ("accuracy",),
        score=score,
        score_test=score_test,
        write=write,
        notes={**data.notes, f"sentences cut at {length} tokens": cut},
        settings={"words": digest_of(words)},
    )


def _are_of_entities(data: TaskData[Tagged]) -> bool:
    try:
        metrics.entities(data.labels)
    except InputError as error:
        # Without entities there is nothing outside of them; with `O` a tag is misspelt.
        if OUTSIDE not in data.labels:
            return False
        for tag in data.labels:
            _check_tag(tag, data, error)
        raise
    return True


def _check_tag(tag: str, data: TaskData[Tagged], error: InputError) -> None:
    try:
        metrics.entities([tag])
    except InputError:
        number = data.labels.index(tag)
        where = next((s.where for s in data.train if number in s.tags), "the files")
        allowed = [f"{prefix}-{tag.partition('-')[2] or 'TYPE'}" for prefix in "BIES"]
        raise InputError(
            f"{where}: {tag!r} is no tag of an entity; beside {OUTSIDE!r} there may be "
            f"{', '.join(allowed)}, where a scheme with L and U writes E and S"
        ) from error


def tags_of(
    sentences: Sequence[Tagged], rows: Rows, outputs_FC: NDArray[np.float32], labels: Sequence[str]
) -> list[list[str]]:
    """Returns the predicted tag of every word of every sentence."""
    tags_F = outputs_FC.argmax(axis=1)
    first_F = rows.token_targets["label_weights"] > 0
    found = []
    for index, sentence in enumerate(sentences):
        span = slice(rows.starts[index], rows.starts[index + 1])
        tags = [labels[tag] for tag in tags_F[span][first_F[span]]]
        found.append(tags + [OUTSIDE] * (len(sentence.words) - len(tags)))
    return found
