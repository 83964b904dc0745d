"""Datasets of the names and features of TFDS's own GLUE and SQuAD, with rows of one's own."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Rows = list[dict[str, Any]]


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stores `ROWS` under the name of a dataset that TFDS knows."""

    FEATURES: Any
    ROWS: Mapping[str, Rows]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=self.FEATURES)

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {split: self._generate_examples(rows) for split, rows in self.ROWS.items()}

    def _generate_examples(self, rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(rows)


def make(
    folder: Path, name: str, config: str, version: str, features: Any, rows: Mapping[str, Rows]
) -> None:
    attributes = {
        "__module__": __name__,
        "name": name,
        "VERSION": tfds.core.Version(version),
        "BUILDER_CONFIGS": [tfds.core.BuilderConfig(name=config)],
        "FEATURES": tfds.features.FeaturesDict(features),
        "ROWS": rows,
    }
    made = type("_Made", (_Builder,), attributes, skip_registration=True)
    made(data_dir=folder, config=config, file_format="array_record").download_and_prepare()


def make_glue(
    folder: Path,
    config: str,
    texts: list[str],
    classes: list[str] | None,
    rows: Mapping[str, list[tuple[Any, ...]]],
) -> None:
    label = tfds.features.ClassLabel(names=classes) if classes else np.float32
    features = {**{text: tfds.features.Text() for text in texts}, "label": label, "idx": np.int32}
    named = {
        split: [dict(zip(features, r, strict=True)) for r in all] for split, all in rows.items()
    }
    make(folder, "glue", config, "2.0.0", features, named)


def squad_features(version: str) -> dict[str, Any]:
    answers = {"text": tfds.features.Text(), "answer_start": np.int32}
    features: dict[str, Any] = {
        "id": np.str_,
        "title": tfds.features.Text(),
        "context": tfds.features.Text(),
        "question": tfds.features.Text(),
        "answers": tfds.features.Sequence(answers),
    }
    if version == "v2.0":
        features["plausible_answers"] = tfds.features.Sequence(answers)
        features["is_impossible"] = np.bool_
    return features
