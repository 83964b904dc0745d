"""Fine-tuning as a stage: every task, network, choice of settings and seed, and what is reported.

Of a network on a task is reported the choice of settings with the best median over the seeds, and
of that choice the whole range. The trial of the median seed keeps its checkpoint and predictions;
those of the others are removed as soon as they are out of the race, or a sweep would fill a disk.
"""

import itertools
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import FINETUNED
from mobilebert_jax.config.finetune import Search
from mobilebert_jax.config.schema import GLUE_TASKS, Config, InputError
from mobilebert_jax.distributed import processes
from mobilebert_jax.finetune import metrics as metrics_lib
from mobilebert_jax.finetune import trial as trial_lib
from mobilebert_jax.finetune.glue import submission
from mobilebert_jax.finetune.published import published
from mobilebert_jax.finetune.selection import Choice, Outcome, Point, choose
from mobilebert_jax.finetune.trial import Subject
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

PUBLISHED_AS = {
    "mobilebert": "MobileBERT",
    "mobilebert_paper_form": "MobileBERT",
    "mobilebert_relu6": "MobileBERT",
    "mobilebert_without_opt": "MobileBERT w/o OPT",
    "mobilebert_tiny": "MobileBERT_TINY",
    "bert_base": "BERT_BASE",
}


def points(search: Search) -> list[Point]:
    """Returns every combination of the settings of a sweep, the cheap ones first."""
    grid = itertools.product(sorted(search.epochs), search.batch_sizes, search.learning_rates)
    return [Point(batch_size, rate, epochs) for epochs, batch_size, rate in grid]


def run(subject: Subject) -> dict[str, Any]:
    """Returns what is reported of one network on one task, running the trials that are missing."""
    began = time.monotonic()
    search = subject.config.finetune.search
    outcomes: list[Outcome] = []
    skipped: Counter[Point] = Counter()
    for point in points(search):
        for seed in search.seeds:
            manifest = trial_lib.run(subject, point, seed)
            outcomes.append(Outcome(point, seed, manifest["metrics"], manifest["digest"]))
            skipped[point] += manifest.get("skipped_steps", 0)
            _tell(subject, outcomes[-1])
        choice = choose(outcomes, subject.task.main)
        if processes.is_first():
            _clear(subject, outcomes, choice)
    report = _report(subject, outcomes, _with_checkpoint(subject, choice), began)
    return {**report, "skipped_steps": skipped[choice.point]}


def _tell(subject: Subject, outcome: Outcome) -> None:
    metrics = ", ".join(f"{name} {outcome.metrics[name]:.1f}" for name in subject.task.main)
    point = outcome.point
    settings = (
        f"batch {point.batch_size}, learning rate {point.learning_rate:g}, {point.epochs} epochs, "
        f"seed {outcome.seed}"
        if point.epochs
        else "as it is"
    )
    subject.console.print(
        f"{subject.task.title}, {subject.role}: {settings}: {metrics}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _clear(subject: Subject, outcomes: Sequence[Outcome], choice: Choice) -> None:
    """Removes the checkpoints of all trials but the one that stands for the choice."""
    kept = _reported(subject.runs)
    for outcome in outcomes:
        trial = trial_lib.declare(subject, outcome.point, outcome.seed)
        if outcome != choice.typical and trial.directory not in kept:
            folder = trial.directory / "checkpoints"
            if storage.is_remote(folder):
                storage.remove_files(folder)
            elif folder.exists():
                shutil.rmtree(folder)


def _reported(runs: Path) -> set[Path]:
    """The folders of the trials that finished sweeps of this run report."""
    found = [artifacts.read_json(path) for path in runs.glob(f"finetune-*/{FINETUNED}")]
    return {
        runs / network["folder"]
        for results in found
        for task in results["tasks"]
        for network in task["networks"]
    }


def _with_checkpoint(subject: Subject, choice: Choice) -> Choice:
    """Runs the chosen trial again where an earlier, smaller sweep removed its checkpoint."""
    trial = trial_lib.declare(subject, choice.typical.point, choice.typical.seed)
    if not processes.agree("checkpoint is kept", lambda: _has_checkpoint(trial.directory)):
        if processes.is_first():
            artifacts.reopen(trial)
        processes.wait_for_all("trial is reopened")
        trial_lib.run(subject, choice.typical.point, choice.typical.seed)
    return choice


def _has_checkpoint(directory: Path) -> bool:
    return bool(storage.names(directory / "checkpoints"))


def _report(
    subject: Subject, outcomes: Sequence[Outcome], choice: Choice, began: float
) -> dict[str, Any]:
    main = subject.task.main
    trial = trial_lib.declare(subject, choice.typical.point, choice.typical.seed)
    by_point: dict[Point, list[float]] = {}
    for outcome in outcomes:
        mean = sum(outcome.metrics[name] for name in main) / len(main)
        by_point.setdefault(outcome.point, []).append(mean)
    random = subject.role == "untrained"
    return {
        "network": subject.role,
        "pretrained": "" if random else str(subject.pretrained.directory),
        "pretrained_digest": "" if random else subject.pretrained.digest,
        "output_layer": subject.output_layer and str(subject.output_layer),
        "point": choice.point._asdict(),
        "seeds": list(subject.config.finetune.search.seeds),
        "metrics": [
            {
                "name": name,
                "main": name in main,
                "median": spread.median,
                "minimum": spread.minimum,
                "maximum": spread.maximum,
                "published": _published(subject, name) if subject.role == "student" else [],
            }
            for name, spread in sorted(
                choice.metrics.items(), key=lambda figure: _rank(figure[0], main)
            )
        ],
        "points": [
            {"point": point._asdict(), "main": values} for point, values in by_point.items()
        ],
        # Within the run, which may be moved, or be called by another path the next time.
        "folder": trial.directory.relative_to(subject.runs).as_posix(),
        "digest": trial.digest,
        "seconds": time.monotonic() - began,
    }


def _rank(name: str, main: Sequence[str]) -> int:
    """Main metrics first, in the benchmark's order."""
    return main.index(name) if name in main else len(main)


def _published(subject: Subject, figure: str) -> list[dict[str, Any]]:
    """The paper's metrics of the network that `published_model` names."""
    part, _, metric = figure.rpartition(" ")
    return _cells(subject.task.name, part, metric, subject.pretrained.model)


def _cells(task: str, part: str, metric: str, model: ModelConfig) -> list[dict[str, Any]]:
    name = published_model(model)
    return [
        {"value": f.value, "split": f.split, "verified": f.verified, "model": f.model}
        for f in (published(task, part, name) if name else ())
        if f.metric == metric
    ]


def published_model(model: ModelConfig) -> str | None:
    """Returns which network of the paper's tables `model` is compared with.

    One of published sizes with itself, a MobileBERT of other sizes with MobileBERT, and any other
    network, of which the paper says nothing, with none; so one with groups, as SqueezeBERT.
    """
    if sizes.has_groups(model):
        return None
    for name, title in PUBLISHED_AS.items():
        found = sizes.PUBLISHED[name]
        if all(getattr(found, key) == getattr(model, key) for key in _SHAPE):
            return title
    narrows = model.use_bottleneck and model.intra_bottleneck_size < model.hidden_size
    return "MobileBERT" if narrows else None


_SHAPE = (
    "hidden_size",
    "intra_bottleneck_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_feedforward_networks",
    "normalization_type",
)


def averages(tasks: Sequence[dict[str, Any]], models: Mapping[str, ModelConfig]) -> dict[str, Any]:
    """Returns the average over the whole tasks of GLUE that are among `tasks`, by network.

    `models` are the networks' sizes: beside the student's official average stands the paper's.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        if task["task"] in GLUE_TASKS:
            for network in task["networks"]:
                medians = {f["name"]: f["median"] for f in network["metrics"]}
                if set(medians) != set(metrics_lib.GLUE_METRICS[task["task"]]):
                    continue  # MNLI of which one dev file was there
                scores.setdefault(network["network"], {})[task["task"]] = medians
    found = {}
    for role, metrics in scores.items():
        official = len(metrics) == len(GLUE_TASKS)
        found[role] = {
            "value": metrics_lib.glue_average(metrics)
            if official
            else metrics_lib.average_of(metrics).value,
            "tasks": len(metrics),
            "official": official,
            "published": _cells("glue", "", "average", models[role])
            if official and role == "student"
            else [],
        }
    return found


def gather_predictions(
    results: dict[str, Any], runs: Path, folder: Path
) -> dict[str, tuple[str, ...]]:
    """Puts the chosen predictions of all tasks side by side, and GLUE's into an archive.

    `runs` is the folder of the run that made the results. Returns what the GLUE server would miss
    in the archive of each network that has one.
    """
    for task in results["tasks"]:
        for network in task["networks"]:
            source = runs / network["folder"] / "predictions"
            target = folder / network["network"]
            storage.make_folder(target)
            for name in storage.files(source):
                glue = task["task"] in GLUE_TASKS and not name.startswith("dev-")
                copied = target / (name if glue else f"{task['task']}-{name.replace('/', '-')}")
                storage.copy(source / name, copied)
    incomplete = {}
    for role in storage.names(folder):
        if any(name in submission.FILES.values() for name in storage.names(folder / role)):
            incomplete[role] = submission.pack(folder / role)
    return incomplete


def check(config: Config, model: ModelConfig, role: str) -> None:
    """Raises InputError where the network cannot read the longest rows of the tasks."""
    settings = config.finetune
    squad = any(task.startswith("squad") for task in settings.tasks)
    others = any(not task.startswith("squad") for task in settings.tasks)
    for key, length, wanted in (
        ("finetune.max_seq_length", settings.max_seq_length, others),
        ("finetune.squad.max_seq_length", settings.squad.max_seq_length, squad),
    ):
        most = model.max_position_embeddings
        if wanted and length > most:
            raise InputError(
                f"{key}={length} exceeds the {most} positions of the {role}; use at most {most}"
            )
