"""Runs every variant with every seed, on shared records and one teacher, and compares them.

Each trained network is a stage folder of the one run, named after what determines it, so that
variants share what they have in common, a run that was killed goes on where it was, and a longer
list of seeds trains only the new ones.
"""

import dataclasses
import datetime
from typing import Any

import rich.console

from mobilebert_jax import artifacts, storage
from mobilebert_jax.ablations import page, statistics, table
from mobilebert_jax.ablations.claims import claims_of
from mobilebert_jax.ablations.variants import Variant, ladder_of, orders_of, variants_of
from mobilebert_jax.artifacts import Artifact
from mobilebert_jax.config.schema import Config, InputError, flatten
from mobilebert_jax.config.stage_settings import science, student_steps, transfer_steps
from mobilebert_jax.data import prepare
from mobilebert_jax.distributed import processes
from mobilebert_jax.pipeline import runner
from mobilebert_jax.pipeline.stage_bodies import Run, load_student, load_teacher, setting, timed
from mobilebert_jax.training import evaluate
from mobilebert_jax.training.checkpoint import Damaged
from mobilebert_jax.training.metric_log import read_rows
from mobilebert_jax.training.profiler import Window

MEASURED = "held_out"
"""Stage folder that holds the scores of one network on held-out documents."""
HELD_OUT_LOSS = "held_out/masked_lm_loss"


def run(config: Config, console: rich.console.Console, profile: Window | None = None) -> None:
    """Trains and measures what is missing, prints the comparison and writes its page.

    Raises InputError as `runner.run` does.
    """
    chosen, seeds = variants_of(config), config.ablations.seeds
    found: dict[str, Any] = {}
    shared: dict[str, Artifact] = {}

    def share(this: Run) -> None:
        shared.update(this.made)
        found["teacher"] = _measure(this, "teacher")

    runner.run(dataclasses.replace(config, stages=("prepare", "teacher")), console, profile, share)
    trials: dict[str, dict[int, dict[str, Any]]] = {variant.name: {} for variant in chosen}
    path = storage.path(config.execution.runs_dir) / config.name / "ablations.html"
    for number, seed in enumerate(seeds):
        for index, variant in enumerate(chosen):
            trial = _trial(variant, seed, shared, console, profile)
            trials[variant.name][seed] = trial
            console.print(
                f"{number * len(chosen) + index + 1} of {len(chosen) * len(seeds)}: "
                f"{variant.name}, seed {seed}: {trial['scores']['masked_lm_loss']:.4f} nats"
            )
            # A run that is stopped early has a page: with the first seed of the variants so far,
            # later of the seeds that all variants have.
            if number == 0 or variant is chosen[-1]:
                outcome = {**_about(config, shared), **found, **compared(config, chosen, trials)}
                if processes.is_first():
                    page.write(outcome, path)
    table.show(outcome, console, path)


def compared(
    config: Config, chosen: list[Variant], trials: dict[str, dict[int, dict[str, Any]]]
) -> dict[str, Any]:
    """Returns the metrics of each variant by seed, and the verdict on each claim of the paper.

    Variants without a trial are left out, with the claims that concern them.
    """
    losses = {
        name: [trial["scores"]["masked_lm_loss"] for trial in by_seed.values()]
        for name, by_seed in trials.items()
        if by_seed
    }
    ladder = ladder_of(config)
    return {
        "seeds": list(trials[chosen[0].name]),
        "variants": [
            {
                "name": variant.name,
                "stage": variant.stage,
                "settings": variant.settings,
                "loss": statistics.spread(losses[variant.name])._asdict(),
                "trials": {str(seed): trial for seed, trial in trials[variant.name].items()},
            }
            for variant in chosen
            if variant.name in losses
        ],
        "claims": claims_of(
            [order for order in orders_of(config) if set(order) <= set(losses)],
            ladder if set(ladder) <= set(losses) else (),
            config.ablations.largest_gain,
            losses,
        ),
    }


def _about(config: Config, shared: dict[str, Artifact]) -> dict[str, Any]:
    return {
        "name": config.name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": flatten(config),
        "student_steps": student_steps(config),
        "digests": {name: artifact.digest for name, artifact in shared.items()},
        "versions": artifacts.versions(),
    }


def _trial(
    variant: Variant,
    seed: int,
    shared: dict[str, Artifact],
    console: rich.console.Console,
    profile: Window | None,
) -> dict[str, Any]:
    """Returns scores and curve of one variant with one seed, trained if it has not been."""
    base = variant.config
    inputs = runner.inputs_of(base)
    config = dataclasses.replace(
        base,
        seed=seed,
        stages=tuple(inputs),
        data=dataclasses.replace(base.data, prepared=str(shared["prepare"].directory)),
        teacher=dataclasses.replace(base.teacher, path=str(shared["teacher"].directory)),
    )
    trial: dict[str, Any] = {}

    def measure(this: Run) -> None:
        trial["scores"] = _measure(this, variant.stage)
        trial["curve"] = _curve(this, variant.stage)
        trial["digest"] = this.made[variant.stage].digest

    runner.run(config, console, profile, measure)
    return trial


def _measure(this: Run, stage: str) -> dict[str, float]:
    """Returns the held-out scores of the network that `stage` made, measured at most once."""
    made = this.made[stage]
    inputs = {"prepare": this.made["prepare"].digest, stage: made.digest}
    artifact = artifacts.declare(this.directory, MEASURED, science(this.config, "evaluate"), inputs)
    if not processes.agree(f"{artifact.digest} is measured", artifact.is_finished):
        if processes.is_first():
            artifacts.begin(artifact)
        try:
            metrics = timed(lambda run, _: _scores(run, stage), this, artifact)
        except Damaged as error:
            if processes.is_first():
                artifacts.reopen(made)
            raise InputError(f"{error}. Give the command again to train it anew") from error
        if processes.is_first():
            artifacts.finish(artifact, metrics)
        processes.wait_for_all(f"{artifact.digest} is measured")
    manifest = artifact.manifest
    if manifest is None:
        raise RuntimeError(f"{artifact.directory} holds no manifest although it was finished")
    scores: dict[str, float] = manifest["scores"]
    return scores


def _scores(this: Run, stage: str) -> dict[str, Any]:
    shared, config = setting(this), this.config
    if stage == "teacher":
        network = shared.network(config.teacher.model)
        params = load_teacher(this, "evaluate", shared)
    else:
        network = shared.network(config.student)
        params = load_student(this, stage, shared)
    directory = this.made["prepare"].directory / "records"
    tokenizer = prepare.load_tokenizer(directory)
    held_out = prepare.open_documents(directory, "held_out")
    mesh = this.layout.mesh
    feed, batches = evaluate.held_out_feed(config, tokenizer, held_out, mesh)
    return {"scores": evaluate.with_attention_worth(network, feed, batches, mesh)(params)}


def _curve(this: Run, stage: str) -> list[tuple[int, float]]:
    """Returns (student steps, held-out masked-LM loss) of all that was measured in training."""
    curve = []
    offset = 0
    for name in ("transfer", stage) if stage == "distill" else (stage,):
        if name not in this.made:
            continue
        for row in read_rows(this.made[name].directory / "metrics.jsonl"):
            if HELD_OUT_LOSS in row:
                curve.append((offset + int(row["step"]) + 1, float(row[HELD_OUT_LOSS])))
        offset += transfer_steps(this.config)
    return curve
