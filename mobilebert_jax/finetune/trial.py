"""One trial: a network fine-tuned on a task with one choice of settings and one seed, and scored.

A trial is an artifact like a stage, in `runs/<name>/trials/<task>-<network>-<digest>`, so that a
sweep that was killed goes on where it was, and one that grew runs only what is new.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import Artifact
from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.distributed import processes
from mobilebert_jax.exit_codes import NonFinite
from mobilebert_jax.finetune import output_layer
from mobilebert_jax.finetune.batching import TrainingBatches
from mobilebert_jax.finetune.predict import predictor
from mobilebert_jax.finetune.pretrained import Pretrained
from mobilebert_jax.finetune.quantization_ranges import calibrated
from mobilebert_jax.finetune.selection import Point
from mobilebert_jax.finetune.task import LoadedTask
from mobilebert_jax.model.layers import Network, TaskHead
from mobilebert_jax.objective import finetune
from mobilebert_jax.objective.loss_terms import Params
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.cpu_features import uses_bfloat16_matmuls
from mobilebert_jax.sharding.global_batch import to_devices
from mobilebert_jax.train import Phase, Training, open_checkpoints, train
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.health import SkippedSteps
from mobilebert_jax.training.state import Layout, State

TASK_STREAM = 2
"""Separates the random parameters of a task's network from those of teacher and student."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is fine-tuned on what: a network in its role, a task, and how the machine is used."""

    config: Config
    layout: Layout
    console: rich.console.Console
    runs: Path
    """Folder of the run."""
    role: str
    pretrained: Pretrained
    task: LoadedTask

    @property
    def network(self) -> Network:
        return Network(
            self.pretrained.model,
            self.config.precision,
            self.config.execution.remat,
            task=TaskHead(
                self.task.reads, self.task.outputs, self.config.finetune.classifier_dropout
            ),
            quantized="rounded" if self.config.finetune.quantized else "no",
        )

    @property
    def output_layer(self) -> output_layer.Match | None:
        """What becomes of the output layer that the network has, None where it has none."""
        own, task = self.pretrained, self.task
        if own.kind is None or self.role == "untrained":
            return None
        return output_layer.match(own.kind, own.labels, task.kind, task.labels, task.other_labels)

    @property
    def trained_network(self) -> Network:
        """`network` as its training computes it; what it is scored by is computed exactly."""
        return dataclasses.replace(
            self.network,
            bfloat16_matmuls=uses_bfloat16_matmuls(self.config, self.layout.mesh),
            attention_implementation=self.config.execution.attention_implementation,
        )


def declare(subject: Subject, point: Point, seed: int) -> Artifact:
    """Returns the trial's artifact, finished or not."""
    settings, layer = subject.config.finetune, subject.output_layer
    own, task = subject.pretrained, subject.task
    equal = (own.kind, own.labels) == (task.kind, task.labels)
    matched = layer is not None and layer.verdict != "new" and not equal
    science = {
        "task": subject.task.name,
        "data": subject.task.digest,
        "network": subject.role,
        "precision": subject.config.precision,
        "model": dataclasses.asdict(subject.pretrained.model),
        "tokenizer_digest": subject.pretrained.tokenizer.digest,
        "max_seq_length": subject.task.length,
        "seed": seed,
        **point._asdict(),
        **{
            name: getattr(settings, name)
            for name in (
                "classifier_dropout",
                "warmup_proportion",
                "weight_decay",
                "clip_norm",
                "bias_correction",
            )
        },
        **(
            {"quantized": True, "calibration_rows": settings.calibration_rows}
            if settings.quantized
            else {}
        ),
        # Trials of before these were matched began with a new layer.
        **({"output_layer": layer.verdict} if layer and matched else {}),
        **subject.task.settings,
    }
    random = subject.role == "untrained"
    inputs = {} if random else {"pretrained": subject.pretrained.digest}
    name = f"{subject.task.name}-{subject.role}"
    return artifacts.declare(subject.runs / "trials", name, science, inputs)


def run(subject: Subject, point: Point, seed: int) -> dict[str, Any]:
    """Returns the manifest of the finished trial, running what is missing of it."""
    trial = declare(subject, point, seed)
    name = f"{trial.stage}-{trial.digest[:8]}"
    if not processes.agree(f"{name} is finished", trial.is_finished):
        if processes.is_first():
            artifacts.begin(trial)
        processes.wait_for_all(f"{name} begins")
        metrics = _train_and_score(subject, trial, point, seed)
        if processes.is_first():
            artifacts.finish(trial, metrics)
        processes.wait_for_all(f"{name} is finished")
    found: dict[str, Any] = processes.agree(f"{name}'s metrics", lambda: trial.manifest)
    return found


def _train_and_score(subject: Subject, trial: Artifact, point: Point, seed: int) -> dict[str, Any]:
    task, network = subject.task, subject.network
    training = _training(subject, point, seed)
    predict = predictor(
        network,
        subject.layout,
        batch_size=subject.config.evaluate.batch_size,
        length=task.length,
        pad=subject.pretrained.tokenizer.pad,
    )
    try:
        state = (
            train(
                training,
                trial.directory,
                subject.config.execution,
                seed,
                subject.layout,
                subject.console,
            )
            if point.epochs
            else _kept_as_it_is(subject, training, trial)
        )
        steps = SkippedSteps(trial.directory / "skipped.jsonl", limit=1)
        skipped = processes.agree("skipped steps", lambda: len(steps.nonfinite()))
        if 2 * skipped > training.steps:
            raise NonFinite(f"{skipped} of {training.steps} steps were not finite and left out")
        params = task.scale.folded(state.params)
        dev = {split: predict(params, rows) for split, rows in task.dev.items()}
        if not all(np.isfinite(outputs).all() for outputs in dev.values()):
            raise NonFinite("what the network says of dev rows is not finite")
    except NonFinite as error:
        raise NonFinite(
            f"{training.name}, batch {point.batch_size}, learning rate {point.learning_rate:g}, "
            f"{point.epochs} epochs: {error}\nTake this value out of "
            "finetune.search.learning_rates; finished trials stay"
        ) from error
    test = {split: predict(params, rows) for split, rows in task.test.items()}
    if processes.is_first():
        _keep(subject, trial.directory, dev, test)
    return {
        "metrics": {**task.score(dev), **task.score_test(test)},
        "steps": training.steps,
        "skipped_steps": skipped,
        "labels": list(task.labels),
        "kind": task.kind,
        "output_layer": subject.output_layer and str(subject.output_layer),
        "params_sha256": state_lib.params_digest(state.params),
    }


def _kept_as_it_is(subject: Subject, training: Training, trial: Artifact) -> State:
    """Returns the state before the first step, saved like the last of a training."""
    state = state_lib.start(
        training.initial(), training.network, training.optimizer, subject.layout
    )
    execution = subject.config.execution
    with open_checkpoints(trial.directory, execution, subject.console) as checkpoints:
        checkpoints.save(state, 0)
        checkpoints.wait()
    return state


def check_as_it_is(subject: Subject) -> None:
    """Raises InputError where a network is to be scored without training and cannot be."""
    layer = subject.output_layer
    if 0 in subject.config.finetune.search.epochs and (layer is None or layer.verdict == "new"):
        why = layer.reason if layer else "it has none"
        raise InputError(
            f"finetune.search.epochs=0 scores {subject.pretrained.directory} as it is, but its "
            f"output layer is not one for {subject.task.title}: {why}"
        )


def _keep(
    subject: Subject, directory: Path, dev: Mapping[str, Any], test: Mapping[str, Any]
) -> None:
    """Writes predictions and tokenizer into the trial's folder."""
    for name, write in (
        ("predictions", lambda folder: subject.task.write(folder, dev, test)),
        ("tokenizer", subject.pretrained.tokenizer.save),
    ):
        written = storage.Written(directory / name)
        storage.make_folder(written.local)
        write(written.local)
        written.keep()


def _training(subject: Subject, point: Point, seed: int) -> Training:
    config, task = subject.config.finetune, subject.task
    network, layout = subject.trained_network, subject.layout
    feed = TrainingBatches(
        task.train,
        batch_size=point.batch_size,
        length=task.length,
        pad=subject.pretrained.tokenizer.pad,
        seed=seed,
        rows_of_process=rules.rows_of_process(layout.mesh, point.batch_size),
    )
    steps = point.epochs * feed.epoch_steps
    settings = schema.Optimizer(
        name="adamw",
        peak_learning_rate=point.learning_rate,
        warmup_steps=round(config.warmup_proportion * steps),
        final_learning_rate_ratio=0.0,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        bias_correction=config.bias_correction,
    )
    optimizer = build(
        settings,
        schedules.base_rate(settings, steps),
        schedules.uniform(network.config.num_hidden_layers),
    )
    return Training(
        name=f"{task.name} {subject.role} seed {seed}",
        network=network,
        initial=lambda: _initial(subject, seed, feed),
        teacher=None,
        optimizer=optimizer,
        phases=(Phase(task.name, 0, steps, finetune.objective(task.kind, network), flops=0.0),),
        feed=feed,
    )


def _initial(subject: Subject, seed: int, feed: TrainingBatches) -> Params:
    """Random parameters, of which those that the pretrained network has are replaced by its own."""
    network, layout = subject.network, subject.layout
    params = state_lib.init_params(network, layout, seed, TASK_STREAM)
    if subject.role != "untrained":
        pretrained = subject.pretrained
        kept = output_layer.arranged(subject.output_layer, pretrained.params(layout, network))
        params = _replaced(params, subject.task.scale.unfolded(kept) if "task" in kept else kept)
    if network.quantized != "no":
        count = -(-subject.config.finetune.calibration_rows // feed.batch_size)
        batches = (to_devices(feed, feed[step], layout.mesh) for step in range(count))
        params = calibrated(network, params, batches, count, layout)
    return jax.tree.map(lambda x: x.copy(), params)


def _replaced(params: Params, own: Params) -> Params:
    """Returns `params` with every leaf that `own` has too taken from there."""
    return {
        name: (_replaced(leaf, own[name]) if isinstance(leaf, dict) else own[name])
        if name in own
        else leaf
        for name, leaf in params.items()
    }
