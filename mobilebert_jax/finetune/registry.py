"""From the name of a task in the configuration to its rows, scores and prediction files."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from mobilebert_jax import storage
from mobilebert_jax.config.finetune import Files, Finetune
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.data import corpus, text_files, tfds_source
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune import line_reader
from mobilebert_jax.finetune import tfds as tfds_tasks
from mobilebert_jax.finetune.classification import files as table_files
from mobilebert_jax.finetune.classification import next_sentence, target_scaling
from mobilebert_jax.finetune.classification import task as classification_task
from mobilebert_jax.finetune.glue import files as glue_files
from mobilebert_jax.finetune.glue import submission
from mobilebert_jax.finetune.glue.tasks import GLUE, GlueTask
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad import task as squad_task
from mobilebert_jax.finetune.squad.files import SquadData
from mobilebert_jax.finetune.tagging import conll
from mobilebert_jax.finetune.tagging import task as tagging_task
from mobilebert_jax.finetune.task import LoadedTask

TFDS = "tfds"
SQUAD_VERSIONS: dict[str, Literal["v1.1", "v2.0"]] = {"squad_v1.1": "v1.1", "squad_v2.0": "v2.0"}
NEXT_SENTENCE = "Next sentence"
CLASS_METRICS = ("accuracy",)
NUMBER_METRICS = ("pearson", "spearman")


def load(name: str, config: Config, tokenizer: Tokenizer) -> LoadedTask:
    """Returns the task called `name`; raises InputError for files that cannot be used.

    Where nothing is trained, the dev file stands for a training file that is not named.
    """
    settings = settled(config.finetune)
    loaded = _loaded(name, config, settings, tokenizer)
    if settings.search.trains:
        return loaded
    notes = {n: count for n, count in loaded.notes.items() if not n.endswith(line_reader.SHARED)}
    return dataclasses.replace(loaded, notes=notes)


def _loaded(name: str, config: Config, settings: Finetune, tokenizer: Tokenizer) -> LoadedTask:
    if name in GLUE:
        return _glue(GLUE[name], settings, tokenizer)
    if name in SQUAD_VERSIONS:
        splits = _squad(SQUAD_VERSIONS[name], settings)
        return squad_task.load(name, squad_title(name), splits, tokenizer, settings.squad)
    if name == "tag":
        sentences = conll.read(settings.files)
        return tagging_task.load(
            name, file_title(settings.files), sentences, tokenizer, settings.max_seq_length
        )
    if name == "next_sentence":
        data = next_sentence.read(
            config.data.source, config.data.validation_fraction, config.execution.workers
        )
        title = NEXT_SENTENCE
    else:
        data, title = table_files.read(settings.files), file_title(settings.files)
    metrics = CLASS_METRICS if data.labels else NUMBER_METRICS
    scale = target_scaling.UNCHANGED
    if not data.labels:
        scale = target_scaling.of([example.label or 0.0 for example in data.train])
    return classification_task.load(
        name, title, data, tokenizer, settings.max_seq_length, metrics, scale=scale
    )


def settled(settings: Finetune) -> Finetune:
    """Returns the settings with the file that stands for one that is not named."""
    files = settings.files
    if settings.search.trains or files.train:
        return settings
    return dataclasses.replace(settings, files=dataclasses.replace(files, train=files.dev))


def file_title(files: Files) -> str:
    """Returns what a task of a user's own files is called."""
    return Path(files.train).name


def squad_title(name: str) -> str:
    """Returns what a task of SQuAD is called."""
    return f"SQuAD {SQUAD_VERSIONS[name]}"


def _glue(task: GlueTask, settings: Finetune, tokenizer: Tokenizer) -> LoadedTask:
    if settings.source == TFDS:
        data = tfds_tasks.read_glue(task)
    else:
        data = glue_files.read(task, storage.path(settings.source))
    loaded = classification_task.load(
        task.name,
        task.title,
        data,
        tokenizer,
        settings.max_seq_length,
        task.metrics,
        files=task.submission,
        score_range=None if data.labels else submission.STS_B_RANGE,
    )
    return dataclasses.replace(loaded, other_labels=task.tfds_labels)


def _squad(version: Literal["v1.1", "v2.0"], settings: Finetune) -> dict[str, SquadData]:
    """Reads TFDS, or the folder's files, or in their place the files that are named."""
    named = settings.files
    if settings.source == TFDS and not named.train:
        found = tfds_tasks.read_squad(version)
        splits = {
            "train": squad_files.from_json(found["train"], f"tfds:squad/{version} train"),
            "dev": squad_files.from_json(found["dev"], f"tfds:squad/{version} validation"),
        }
    else:
        folder = storage.path(settings.source)
        train = storage.path(named.train) if named.train else folder / f"train-{version}.json"
        dev = storage.path(named.dev) if named.dev else folder / f"dev-{version}.json"
        splits = {"train": squad_files.read(train), "dev": squad_files.read(dev)}
    if named.test:
        splits["test"] = squad_files.read(storage.path(named.test))
    # A file of v1.1 may serve as training data of v2.0; how dev is scored is what the name says.
    v2 = version == "v2.0"
    if splits["dev"].v2 != v2:
        raise InputError(
            f"the dev file of squad_{version} {'has no' if v2 else 'has'} unanswerable questions; "
            f"use the task squad_{'v1.1' if v2 else 'v2.0'} for it"
        )
    if splits["train"].v2 and not v2:
        raise InputError(
            "the training file of squad_v1.1 has unanswerable questions, which an answer of that "
            "version cannot say; train on a file of v1.1, or use the task squad_v2.0"
        )
    return {split: dataclasses.replace(data, v2=v2) for split, data in splits.items()}


def fingerprint(name: str, config: Config) -> Any:
    """Returns the identity of what `load` would read, to be written as JSON, without reading rows.

    Files are hashed whole.
    """
    settings = settled(config.finetune)
    files = settings.files
    if name == "next_sentence":
        return {
            "sources": corpus.fingerprints(config.data.source),
            "validation_fraction": config.data.validation_fraction,
        }
    if name in GLUE:
        if settings.source == TFDS:
            return _datasets(GLUE[name])
        return _hashes(GLUE[name], storage.path(settings.source))
    found: dict[str, Any] = {}
    version = SQUAD_VERSIONS.get(name)
    # By split: files in two folders may have the same name.
    given = {"train": files.train, "dev": files.dev, "test": files.test}
    if version and settings.source == TFDS and not files.train:
        found = tfds_source.fingerprint(f"squad/{version}")
        given = {"test": files.test}
    elif version:
        folder = storage.path(settings.source)
        for split in ("train", "dev"):
            given[split] = given[split] or str(folder / f"{split}-{version}.json")
    return {**found, **{s: _sha256(storage.path(path)) for s, path in given.items() if path}}


def _datasets(task: GlueTask) -> dict[str, Any]:
    """Of the task's dataset, and whether MNLI's diagnostic set, which may come later, is there."""
    found = tfds_source.fingerprint(task.tfds)
    for other in {split.dataset for split in task.test.values()} - {task.tfds}:
        try:
            found[other] = str(tfds_source.prepared(other, ("test",)).info.version)
        except InputError:
            found[other] = "missing"
    return found


def _hashes(task: GlueTask, folder: Path) -> dict[str, str]:
    """Of the files that are read; MNLI's diagnostic set lies in a folder of its own."""
    splits = (task.train, *task.dev.values(), *task.test.values())
    there = [[name for name in split.files if (folder / name).exists()][:1] for split in splits]
    if not there[0] or not any(there[1 : 1 + len(task.dev)]):
        glue_files.read(task, folder)  # says what is missing, and where to get it
    return {name: _sha256(folder / name) for names in there for name in names}


def _sha256(path: Path) -> str:
    try:
        return text_files.sha256(os.fspath(path))
    except InputError as error:
        raise InputError(f"{error}; {line_reader.beside(os.fspath(path))}") from error
