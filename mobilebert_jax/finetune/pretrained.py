"""What is fine-tuned: a finished training stage, or an imported network."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import Artifact
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune import finished_trial
from mobilebert_jax.finetune.finished_trial import Finished
from mobilebert_jax.interop import reading
from mobilebert_jax.interop.model import Model, numbered_labels
from mobilebert_jax.model.layers import Network
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.objective.finetune import Kind
from mobilebert_jax.objective.loss_terms import Params
from mobilebert_jax.training import checkpoint
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout

MODEL_SETTINGS = {
    "teacher": "teacher.model.",
    "transfer": "student.",
    "distill": "student.",
    "control": "student.",
    "baseline": "student.",
}
"""Training stages, and where their settings describe the network."""


PADDED_TO = 128
"""The largest number of which a vocabulary is commonly made a multiple by vectors without use."""


class Pretrained(NamedTuple):
    """A network's settings, tokenizer and place, before the parameters of ours are read."""

    directory: Path
    digest: str
    """Of the stage that made it, or of the files that it was imported from."""
    model: ModelConfig
    tokenizer: Tokenizer
    validation_fraction: float | None
    """Share of documents kept from its training; None where that is not known."""
    imported: Params | None = None
    """Parameters of an imported network."""
    made_as: Finished | None = None
    """The trial of which it is, where it is to be fine-tuned further."""
    kind: Kind | None = None
    """Of the task that it was fine-tuned on, if any."""
    labels: tuple[str, ...] = ()

    def params(self, layout: Layout, network: Network) -> Params:
        """Returns the parameters with whatever heads there are, or raises Damaged.

        Those of a training stage are sharded over the devices; `network` says for both which
        parts are wanted, of which an imported network must have embeddings, blocks and pooler.
        """
        if self.imported is None:
            own = self.made_as.network if self.made_as else Network(self.model)
            abstract = state_lib.abstract_params(own, layout)
            params = checkpoint.load_params(self.directory / "checkpoints", abstract)
            return self.made_as.scale.folded(params) if self.made_as else params
        abstract = state_lib.abstract_params(network, layout)
        return {
            part: _placed(self.imported[part], wanted)
            for part, wanted in abstract.items()
            if part in self.imported
        }


def _placed(arrays: Params, wanted: Params) -> Params:
    """Returns `arrays` as `wanted` lays them out, which may hold leaves beyond them: ranges."""
    return {
        name: _placed(array, wanted[name])
        if isinstance(array, dict)
        else jax.device_put(array, wanted[name].sharding)
        for name, array in arrays.items()
    }


def find(setting: str, folder: str) -> Pretrained:
    """Returns the network in `folder`, which `setting` names: a finished training stage, or what
    `interop.reading` knows.

    Raises InputError where there is none.
    """
    directory = storage.path(folder)
    for stage in MODEL_SETTINGS:
        artifact = artifacts.existing(stage, directory)
        if artifact is not None:
            return open_stage(artifact)
    trial = finished_trial.existing(directory)
    if trial is not None:
        return Pretrained(
            directory, trial.digest, trial.model, trial.tokenizer, None,
            made_as=trial, kind=trial.kind, labels=trial.labels,
        )  # fmt: skip
    if not storage.is_remote(directory) and reading.is_there(directory):
        return _imported(setting, directory)
    raise InputError(
        f"{setting}={folder!r} is not the folder of a finished training stage "
        f"({', '.join(MODEL_SETTINGS)}); it should be one like runs/<name>/distill-<digest> that "
        f"holds a manifest.json, {reading.FORMATS}{reading.hint(folder)}"
    )


def open_stage(artifact: Artifact) -> Pretrained:
    """Returns what the folder of a finished training stage says of its network."""
    prefix = MODEL_SETTINGS[artifact.stage]
    settings: dict[str, Any] = {
        key.removeprefix(prefix): value
        for key, value in artifact.science.items()
        if key.startswith(prefix)
    }
    folder: Path = artifact.directory / "tokenizer"
    manifest = artifact.manifest or {}
    artifacts.check_files(artifact.directory)
    tokenizer = tokenizers.load_saved(folder, manifest["tokenizer_digest"])
    model = ModelConfig(**settings)
    model = dataclasses.replace(model, vocab_size=model.vocab_size or tokenizer.size)
    _check_vocabulary(artifact.directory, model, tokenizer)
    fraction = manifest.get("validation_fraction", 0.0)
    return Pretrained(artifact.directory, artifact.digest, model, tokenizer, fraction)


def _imported(setting: str, directory: Path) -> Pretrained:
    found, _ = reading.read(directory)
    if found.tokenizer is None:
        raise InputError(
            f"{setting}={str(directory)!r} holds no vocabulary; put the vocab.txt that the network "
            "was trained with beside its weights"
        )
    _check_vocabulary(directory, found.config, found.tokenizer)
    spare = found.config.vocab_size - found.tokenizer.size
    if spare >= PADDED_TO:
        raise InputError(
            f"{directory}: the network has vectors for {found.config.vocab_size} pieces, the "
            f"tokenizer beside it {found.tokenizer.size} pieces, far more than padding leaves "
            "unused; put the vocab.txt that the network was trained with beside its weights"
        )
    # The same parameters under other names of classes are another network to whoever uses it.
    described = (found.config, found.kind, found.labels, found.tokenizer.digest)
    digest = hashlib.sha256(repr(described).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(found.params):
        digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return Pretrained(
        directory, digest.hexdigest(), found.config, found.tokenizer, None, found.params,
        kind=_kind(found), labels=_labels(found),
    )  # fmt: skip


def _kind(found: Model) -> Kind | None:
    """Returns which kind of task the output layer is of; one output is a number."""
    if found.kind == "sequence_classification":
        outputs = found.params["task"]["dense"]["bias"].shape[-1]
        return "number" if outputs == 1 else "classes"
    kinds: dict[str, Kind] = {"token_classification": "tags", "question_answering": "span"}
    return kinds.get(found.kind)


def _labels(found: Model) -> tuple[str, ...]:
    """Returns the names of the outputs, numbers as in `transformers` where they have none."""
    if _kind(found) not in ("classes", "tags"):
        return ()
    outputs = found.params["task"]["dense"]["bias"].shape[-1]
    return found.labels or numbered_labels(outputs)


def _check_vocabulary(directory: Path, model: ModelConfig, tokenizer: Tokenizer) -> None:
    if model.vocab_size < tokenizer.size:
        raise InputError(
            f"{directory}: the network has vectors for {model.vocab_size} pieces, the "
            f"tokenizer beside it {tokenizer.size} pieces: they are of different vocabularies"
        )
