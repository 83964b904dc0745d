"""What a configuration settles before anything runs: steps, and what each stage depends on."""

import dataclasses
from typing import Any

from mobilebert_jax.config.schema import Config, flatten

EXAMPLE_SETTINGS = (
    "max_seq_length",
    "max_predictions_per_seq",
    "masked_lm_prob",
    "short_seq_prob",
    "whole_word_mask",
)
"""Settings of `data` that shape examples; the others shape records."""

TEACHER_WORD_SETTINGS = ("distill.alpha", "distill.temperature")
"""Settings of distillation that mean nothing to the baseline, which has no teacher."""

FOUND_BY_CONTENT = (
    "teacher.path",
    "finetune.pretrained",
    "finetune.source",
    "export.model",
    *(f"finetune.files.{split}" for split in ("train", "dev", "test")),
)
"""Places of inputs, which count by what lies there."""

SCIENCE = {
    "prepare": ("data.", "tokenizer."),
    "teacher": ("seed", "precision", "data.", "teacher."),
    "transfer": ("seed", "precision", "data.", "student.", "transfer."),
    "distill": ("seed", "precision", "data.", "student.", "distill."),
    "control": ("seed", "precision", "data.", "student.", "distill."),
    "baseline": ("seed", "precision", "data.", "student.", "distill."),
    "evaluate": ("data.", "evaluate."),
    "finetune": ("precision", "finetune."),
    "export": ("export.",),
}
"""Prefixes of the settings that each stage's numbers depend on, beside its inputs."""


def settle(config: Config, vocab_size: int) -> Config:
    """Returns `config` with `vocab_size` where a model leaves its own to the tokenizer (0)."""
    teacher, student = config.teacher.model, config.student
    teacher = dataclasses.replace(teacher, vocab_size=teacher.vocab_size or vocab_size)
    student = dataclasses.replace(student, vocab_size=student.vocab_size or vocab_size)
    return dataclasses.replace(
        config, teacher=dataclasses.replace(config.teacher, model=teacher), student=student
    )


def phase_steps(steps: int, layers: int) -> int:
    """Returns T, the number of steps each layer is the active one.

    Progressive transfer ends after `layers * T` steps; what `steps` has beyond that is not run.
    """
    return steps // layers


def transfer_steps(config: Config) -> int:
    """Returns the steps that transfer really runs, which progressive rounds to whole phases."""
    if config.transfer.strategy == "progressive":
        layers = config.student.num_hidden_layers
        return layers * phase_steps(config.transfer.steps, layers)
    return 0 if config.transfer.strategy == "none" else config.transfer.steps


def student_steps(config: Config) -> int:
    """Returns the steps of transfer and distillation together."""
    return transfer_steps(config) + config.distill.steps


def science(config: Config, stage: str) -> dict[str, Any]:
    """Returns the settings that the numbers of `stage` depend on."""
    flat = flatten(config)
    chosen = {}
    for key, value in flat.items():
        if not key.startswith(SCIENCE[stage]):
            continue
        if key in FOUND_BY_CONTENT:
            continue
        if stage == "baseline" and key in TEACHER_WORD_SETTINGS:
            continue
        if key.startswith("data."):
            shapes_examples = key.removeprefix("data.") in EXAMPLE_SETTINGS
            if shapes_examples == (stage == "prepare"):
                continue
        chosen[key] = value
    if stage in ("distill", "control", "baseline"):
        # Where distillation's data begins, and how long control and baseline train.
        chosen["transfer_steps"] = transfer_steps(config)
    if stage == "control" or (stage == "distill" and config.transfer.strategy == "none"):
        chosen["transfer.copy_embeddings"] = config.transfer.copy_embeddings
    if stage == "distill" and config.transfer.strategy == "auxiliary":
        chosen |= {k: v for k, v in flat.items() if k.startswith("transfer.")}
    return chosen
