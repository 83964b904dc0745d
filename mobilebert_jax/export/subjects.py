"""What is exported: a network with the rows that show what it reads, and where it comes from.

Shapes: N rows, T positions.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import FINETUNED, Artifact
from mobilebert_jax.config.schema import FOLDER_FORMATS, Config, InputError
from mobilebert_jax.data import prepare
from mobilebert_jax.finetune import finished_trial, registry
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.finished_trial import Finished
from mobilebert_jax.finetune.task import LoadedTask
from mobilebert_jax.inference import sentence_folder
from mobilebert_jax.inference.load import find, open_model
from mobilebert_jax.interop.forward import INPUTS, Inputs
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.sentence_vector import MEAN, Pooling
from mobilebert_jax.training.evaluate import held_out_feed
from mobilebert_jax.training.state import Layout

STUDENT = "student"
HEADS = ("masked_lm", "next_sentence")


class Subject(NamedTuple):
    """One network that is exported."""

    name: str
    """Of its folder."""
    folder: Path
    model: Model
    trial: Finished | None
    task: LoadedTask | None
    """That it was fine-tuned on, where its data is at hand."""
    length: int
    """Tokens of an example in formats whose shapes are fixed."""
    calibration: Inputs | None
    """Examples of what it reads; None where there are none."""
    pooling: Pooling = MEAN
    """How it makes one vector of a text, where it has no head."""

    @property
    def quantized(self) -> bool:
        """Whether it was trained to be computed in 8 bits."""
        return self.trial is not None and self.trial.quantized

    @property
    def reads_pairs(self) -> bool:
        """Whether it was fine-tuned on pairs of texts, as far as is known."""
        task = self.task
        return task is not None and any(r.has_pairs for r in (task.train, *task.dev.values()))


def found(config: Config, layout: Layout, made: Mapping[str, Artifact]) -> list[Subject]:
    """Returns the network that `export.model` names, or else this run's student and the trials
    that it reports of the student.

    All processes must ask for it. Raises InputError for what is no network.
    """
    if config.export.model:
        name = storage.path(config.export.model).name
        return [_subject(config, layout, name, find(config.export.model), None)]
    subjects = []
    if "distill" in made:
        student = made["distill"].directory
        subjects.append(_subject(config, layout, STUDENT, student, made.get("prepare")))
    if "finetune" in made:
        for task, folder in _chosen_trials(made["finetune"].directory).items():
            subjects.append(_subject(config, layout, f"{task}-{STUDENT}", folder, None))
    return subjects


def _chosen_trials(folder: Path) -> dict[str, Path]:
    """Returns by task the folder of the trial that a finished sweep reports of the student."""
    finetuned = artifacts.read_json(folder / FINETUNED)
    return {
        task["task"]: folder.parent / found["folder"]
        for task in finetuned["tasks"]
        for found in task["networks"]
        if found["network"] == STUDENT
    }


def _subject(
    config: Config, layout: Layout, name: str, folder: Path, prepared: Artifact | None
) -> Subject:
    model = open_model(str(folder), layout)
    trial = finished_trial.existing(folder)
    if trial is not None:
        task = _task(config, trial)
        calibration = None
        if task is not None:
            chosen = range(min(len(task.train), config.finetune.calibration_rows))
            calibration = inputs_of(task.train, chosen, trial.length, trial.tokenizer.pad)
        return Subject(name, folder, model, trial, task, trial.length, calibration)
    if prepared is not None:
        examples = _held_out(config, prepared)
        length = examples.input_ids_NT.shape[1]
        return Subject(name, folder, model, None, None, length, examples)
    lengths = [config.export.max_seq_length, model.config.max_position_embeddings]
    sentences = None
    if any(name.startswith("litert") for name in config.export.formats):
        sentences = sentence_folder.read(folder)
    if sentences is None:
        return Subject(name, folder, model, None, None, min(lengths), None)
    lengths += [sentences.length] if sentences.length else []
    return Subject(name, folder, model, None, None, min(lengths), None, sentences.pooling)


def _task(config: Config, trial: Finished) -> LoadedTask | None:
    """Returns the task that `trial` was scored on; None where no program's score is asked for."""
    if set(config.export.formats) <= set(FOLDER_FORMATS):
        return None
    span = dataclasses.replace(config.finetune.squad, max_seq_length=trial.length)
    settings = dataclasses.replace(config.finetune, max_seq_length=trial.length, squad=span)
    task = registry.load(
        trial.task, dataclasses.replace(config, finetune=settings), trial.tokenizer
    )
    if task.digest != trial.data:
        raise InputError(
            f"{trial.directory} was scored on other data than finetune.source="
            f"{config.finetune.source!r} and finetune.files now give for {trial.task!r}; name "
            "those that it was fine-tuned on, with the same settings finetune.squad"
        )
    return task


def inputs_of(rows: Rows, chosen: range, length: int, pad: int) -> Inputs:
    """Returns some rows padded to `length`."""
    batch = rows.batch(np.array(chosen, np.int64), length, pad)
    return Inputs(*(batch[name] for name in INPUTS))


def _held_out(config: Config, prepared: Artifact) -> Inputs:
    """Returns examples of the documents that pretraining did not see."""
    directory = prepared.directory / "records"
    tokenizer = prepare.load_tokenizer(directory)
    feed, _ = held_out_feed(config, tokenizer, prepare.open_documents(directory, "held_out"), None)
    count = -(-config.finetune.calibration_rows // feed.batch_size)
    batches = [feed[step] for step in range(count)]
    arrays = (np.concatenate([batch[name] for batch in batches]) for name in INPUTS)
    return Inputs(*arrays).rows(0, config.finetune.calibration_rows)


def as_encoder(model: Model) -> Model:
    """Returns a pretrained network without the heads of pretraining, which nobody runs on a phone;
    one with a task as it is."""
    if model.kind not in ("pretraining", "masked_lm", "next_sentence"):
        return model
    params: dict[str, Any] = {k: v for k, v in model.params.items() if k not in HEADS}
    return model._replace(kind="bare", params=params)
