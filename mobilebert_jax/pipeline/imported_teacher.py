"""A teacher that the run does not train itself (`teacher.path`).

It is the finished stage of another run, which is used in place, or an imported network,
such as a BERT of Hugging Face's or of the authors', which becomes a stage of this run: from then on
nothing tells it from a teacher that was trained here.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import Artifact
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.config.stage_settings import science
from mobilebert_jax.finetune import pretrained
from mobilebert_jax.finetune.pretrained import Pretrained
from mobilebert_jax.interop import reading
from mobilebert_jax.model.layers import Network
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.training.checkpoint import Checkpoints
from mobilebert_jax.training.state import Layout, params_digest

STAGE = "teacher"
SETTINGS = "teacher.model."
_ONLY_IN_TRAINING = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
"""Settings of a network that no teacher computes with."""
_OTHER_TOKENIZER = (
    "it was trained with another tokenizer than that of the records; name its vocabulary with "
    "tokenizer.path"
)


def find(config: Config, run: Path, inputs: Mapping[str, str]) -> Artifact:
    """Returns the stage that `teacher.path` stands for, finished or to be imported.

    Raises InputError as `compared`.
    """
    found = compared(config)
    if isinstance(found, Artifact):
        return found
    chosen = {k: v for k, v in science(config, STAGE).items() if k.startswith(SETTINGS)}
    return artifacts.declare(run, STAGE, {**chosen, "imported": found.digest}, inputs)


def compared(config: Config) -> Artifact | Pretrained:
    """Returns the finished stage or the network at `teacher.path`, without its vocabulary.

    Raises InputError where there is neither, its sizes are not those of the configuration, or it
    has no heads of pretraining.
    """
    directory = storage.path(config.teacher.path)
    finished = artifacts.existing(STAGE, directory)
    if finished is not None:
        _refuse(config, _other_settings(config, finished))
        return finished
    if storage.is_remote(directory) or not reading.is_there(directory):
        raise InputError(
            f"teacher.path={config.teacher.path!r} is not the folder of a finished stage "
            "'teacher'; it should be one like runs/<name>/teacher-<digest> that holds a "
            f"manifest.json, {reading.FORMATS}{reading.hint(config.teacher.path)}"
        )
    found = pretrained.find("teacher.path", config.teacher.path)
    wanted = config.teacher.model
    # 0 is the size of the run's vocabulary, which is compared once the text is prepared.
    size = wanted.vocab_size or found.model.vocab_size
    wrong = _differences(found.model, dataclasses.replace(wanted, vocab_size=size))
    lacking = {"masked_lm", "next_sentence"} - {*(found.imported or ())}
    if lacking:
        wrong.append(f"it lacks {' and '.join(sorted(lacking))}, the heads of pretraining")
    _refuse(config, wrong)
    return found


def import_into(
    directory: Path, config: Config, network: Network, layout: Layout, tokenizer_digest: str
) -> dict[str, Any]:
    """Writes the network at `teacher.path` into the stage's folder; returns metrics of it.

    Raises InputError unless it is `network`, with the run's vocabulary.
    """
    found = pretrained.find("teacher.path", config.teacher.path)
    wrong = _differences(found.model, network.config)
    if found.tokenizer.digest != tokenizer_digest:
        wrong.append(_OTHER_TOKENIZER)
    _refuse(config, wrong)
    params = found.params(layout, network)
    with Checkpoints(directory / "checkpoints", keep=1) as checkpoints:
        checkpoints.save_params(params, 0)
    return {
        "steps": 0,
        "tokens": 0,
        "params_sha256": params_digest(params),
        "tokenizer_digest": tokenizer_digest,
        "validation_fraction": None,
    }


def check(config: Config, given: Artifact, prepared: Artifact, tokenizer_digest: str) -> None:
    """Raises InputError where the teacher of another run does not fit this one."""
    wrong = _other_settings(config, given)
    if given.inputs["prepare"] != prepared.digest:
        theirs = (given.manifest or {}).get("tokenizer_digest")
        if theirs != tokenizer_digest:
            wrong.append(_OTHER_TOKENIZER)
    _refuse(config, wrong)


def _other_settings(config: Config, given: Artifact) -> list[str]:
    """Returns the settings in which the teacher of another run is not what this one says."""
    return [
        f"{key}: it has {given.science.get(key)!r}, the configuration {value!r}"
        for key, value in science(config, STAGE).items()
        if key.startswith(SETTINGS) and given.science.get(key) != value
    ]


def _differences(found: ModelConfig, wanted: ModelConfig) -> list[str]:
    """Returns the settings in which an imported network is not what the configuration says."""
    settings = {field.name for field in dataclasses.fields(ModelConfig)} - {*_ONLY_IN_TRAINING}
    if not found.trigram_input:
        settings.discard("trigram_masks_padding")
    return [
        f"{SETTINGS}{name}: it has {getattr(found, name)!r}, the configuration "
        f"{getattr(wanted, name)!r}"
        for name in sorted(settings)
        if getattr(found, name) != getattr(wanted, name)
    ]


def _refuse(config: Config, wrong: list[str]) -> None:
    if wrong:
        raise InputError(
            f"teacher.path={config.teacher.path!r} does not fit this run:\n"
            + "\n".join(f"  - {line}" for line in wrong)
        )
