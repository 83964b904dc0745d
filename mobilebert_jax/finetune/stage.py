"""The stage `finetune`: opens networks and tasks, runs their sweeps, writes down the outcome."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console

from mobilebert_jax.artifacts import FINETUNED, Artifact, write_json
from mobilebert_jax.config import fused_attention
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.distributed import processes
from mobilebert_jax.finetune import pretrained, registry, sweep
from mobilebert_jax.finetune import trial as trial_lib
from mobilebert_jax.finetune.pretrained import Pretrained
from mobilebert_jax.finetune.task import LoadedTask
from mobilebert_jax.finetune.trial import Subject
from mobilebert_jax.sharding.gpu_features import check_fused_attention
from mobilebert_jax.training.state import Layout

STAGES = {
    "student": "distill",
    "untrained": "distill",
    "teacher": "teacher",
    "control": "control",
    "baseline": "baseline",
}
"""Where networks come from; one with random parameters has the student's sizes and vocabulary."""


def stages_needed(config: Config) -> tuple[str, ...]:
    """Returns the stages of the run itself whose networks are fine-tuned."""
    return tuple(
        dict.fromkeys(
            STAGES[role] for role in config.finetune.networks if not is_given(config, role)
        )
    )


def networks_of(config: Config, made: Mapping[str, Artifact]) -> dict[str, Pretrained]:
    """Returns each network that is fine-tuned, by role."""
    setting = "finetune.pretrained"
    return {
        role: pretrained.find(setting, config.finetune.pretrained)
        if is_given(config, role)
        else pretrained.open_stage(made[STAGES[role]])
        for role in config.finetune.networks
    }


def is_given(config: Config, role: str) -> bool:
    """Whether a network is the one that `finetune.pretrained` names."""
    return bool(config.finetune.pretrained) and STAGES[role] == "distill"


def run(
    config: Config,
    layout: Layout,
    console: rich.console.Console,
    run_folder: Path,
    networks: Mapping[str, Pretrained],
    folder: Path,
) -> dict[str, Any]:
    """Fine-tunes `networks`, by role, on every task; returns the outcome.

    Leaves it in `folder` as `finetune.json`, with the files of predictions beside it.
    """
    for role, network in networks.items():
        _check(config, role, network)
        _check_attention(config, layout, role, network)
    # All of them first: a mistake in the last file should not be found after days of training.
    tasks = _load(config, list(networks.values()), console)
    results: dict[str, Any] = {"tasks": []}
    for name in config.finetune.tasks:
        subjects = [
            Subject(
                config,
                layout,
                console,
                run_folder,
                role,
                network,
                tasks[name, network.tokenizer.digest],
            )
            for role, network in networks.items()
        ]
        for subject in subjects:
            trial_lib.check_as_it_is(subject)
            if subject.output_layer is not None:
                console.print(
                    f"{subject.task.title}, {subject.role}: output layer {subject.output_layer}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        found = [sweep.run(subject) for subject in subjects]
        about = _about(subjects[0].task)
        for result in found:
            if result["skipped_steps"]:
                what = f"steps of the {result['network']} that were not finite and left out"
                about["notes"][what] = result["skipped_steps"]
        results["tasks"].append({**about, "networks": found})
    models = {role: network.model for role, network in networks.items()}
    results["averages"] = sweep.averages(results["tasks"], models)
    if processes.is_first():
        incomplete = sweep.gather_predictions(results, run_folder, folder / "predictions")
        for role, missing in incomplete.items():
            if missing:
                console.print(f"submission.zip of {role} still lacks {', '.join(missing)}")
        write_json(folder / FINETUNED, results)
    return results


def _load(
    config: Config, networks: list[Pretrained], console: rich.console.Console
) -> dict[tuple[str, str], LoadedTask]:
    """Returns every task by its name and the digest of the tokenizer that cut it."""
    loaded: dict[tuple[str, str], LoadedTask] = {}
    for name in config.finetune.tasks:
        for network in networks:
            key = name, network.tokenizer.digest
            if key not in loaded:
                processes.beat()
                loaded[key] = registry.load(name, config, network.tokenizer)
                _report(loaded[key], network.tokenizer, config, console)
    return loaded


def _check(config: Config, role: str, network: Pretrained) -> None:
    sweep.check(config, network.model, role)
    kept = network.validation_fraction
    if (
        "next_sentence" in config.finetune.tasks
        and kept is not None
        and config.data.validation_fraction > kept
    ):
        raise InputError(
            f"the task 'next_sentence' would read documents that {network.directory} was trained "
            f"on: data.validation_fraction={config.data.validation_fraction} there was {kept}; set "
            "it to at most that"
        )
    if config.tokenizer.path:
        given = tokenizers.load(config.tokenizer.path, config.tokenizer)
        if given.digest != network.tokenizer.digest:
            raise InputError(
                f"tokenizer.path={config.tokenizer.path!r} has {given.size} pieces and is not the "
                f"vocabulary of {network.directory}, which has {network.tokenizer.size}; leave "
                "tokenizer.path out: a checkpoint brings its own"
            )


def _check_attention(config: Config, layout: Layout, role: str, network: Pretrained) -> None:
    """Raises InputError where a network cannot be trained with the fused attention asked for."""
    if config.execution.attention_implementation == "cudnn" and config.finetune.search.trains:
        model, key = network.model, f"{role} in {network.directory}: model"
        check_fused_attention(config.execution, layout.mesh, [model])
        problem = fused_attention.model_problem(key, model)
        problem = problem or fused_attention.dropout_problem("finetune", key, model)
        if problem:
            raise InputError(problem)


def _report(
    task: LoadedTask, tokenizer: Tokenizer, config: Config, console: rich.console.Console
) -> None:
    """Prints the sizes of a task, and a warning where the vocabulary knows little of it."""
    about = _about(task)
    unknown = float((task.train.ids_F == tokenizer.unk).mean())
    warnings = list(tokenizer.oddities)
    if unknown > config.tokenizer.max_unknown_share:
        warnings.append(
            f"{task.title}: the vocabulary does not know {unknown:.0%} of the tokens; is it of "
            "another language or case?"
        )
    for warning in warnings:
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count:,} {split}" for split, count in about["rows"].items())
    noted = "".join(f"; {count} {what}" for what, count in about["notes"].items())
    console.print(f"{task.title}: {counts}{noted}", markup=False, highlight=False, soft_wrap=True)


def _about(task: LoadedTask) -> dict[str, Any]:
    return {
        "task": task.name,
        "title": task.title,
        "kind": task.kind,
        "labels": list(task.labels),
        "rows": {
            "train": len(task.train),
            "dev": sum(len(rows) for rows in task.dev.values()),
            "test": sum(len(rows) for rows in task.test.values()),
        },
        "length": task.length,
        "notes": {what: count for what, count in task.notes.items() if count},
    }
