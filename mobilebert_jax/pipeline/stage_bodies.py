"""What each stage does inside its folder: prepare text, train, evaluate."""

import dataclasses
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich.console
import rich.markup
import rich.progress
import rich.table

from mobilebert_jax import storage
from mobilebert_jax.artifacts import Artifact, write_json
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.data import prepare, prepare_checks
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.distributed import processes
from mobilebert_jax.export import stage as exporting
from mobilebert_jax.finetune import stage as finetuning
from mobilebert_jax.objective.loss_terms import Params
from mobilebert_jax.optimizer import masks
from mobilebert_jax.pipeline import curriculum, evaluation, imported_teacher
from mobilebert_jax.train import Training, train
from mobilebert_jax.training import checkpoint, evaluate, goodput, introspection
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.health import SkippedSteps
from mobilebert_jax.training.profiler import Window
from mobilebert_jax.training.state import Layout


@dataclasses.dataclass
class Run:
    """One run of an experiment: its folder, devices, and the artifacts found or made so far."""

    config: Config
    console: rich.console.Console
    layout: Layout
    profile: Window | None = None
    made: dict[str, Artifact] = dataclasses.field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return storage.path(self.config.execution.runs_dir) / self.config.name


def check_model_vocabularies(config: Config, size: int) -> None:
    """Raises InputError where a model has fewer word vectors than the tokenizer has pieces."""
    for name, model in (("teacher.model", config.teacher.model), ("student", config.student)):
        if 0 < model.vocab_size < size:
            raise InputError(
                f"{name}.vocab_size={model.vocab_size} is smaller than the tokenizer's {size} "
                f"pieces; use 0 to take the tokenizer's size, or at least {size}"
            )


def timed(body: Callable[..., dict[str, Any]], this: Run, artifact: Artifact) -> dict[str, Any]:
    """Runs a stage's body and adds the seconds it took."""
    began = time.monotonic()
    metrics = body(this, artifact)
    return {"seconds": time.monotonic() - began, **metrics}


def _prepare(this: Run, artifact: Artifact) -> dict[str, Any]:
    return processes.agree("prepared", lambda: _prepare_alone(this, artifact))


def _prepare_alone(this: Run, artifact: Artifact) -> dict[str, Any]:
    config = this.config
    with rich.progress.Progress(console=this.console) as progress:
        tasks: dict[str, rich.progress.TaskID] = {}

        def show(phase: str, done: int, total: int) -> None:
            processes.beat()
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase)
            progress.update(tasks[phase], completed=done, total=total)

        made = prepare.prepare(
            config.data,
            config.tokenizer,
            artifact.directory / "records",
            config.execution.workers,
            show,
        )
    for kind, sentence in prepare_checks.remarks(made):
        colour = "yellow" if kind == "warning" else "dim"
        this.console.print(f"[{colour}]{rich.markup.escape(sentence)}[/]")
    return {"records": made}


def setting(this: Run) -> curriculum.Setting:
    """Opens the run's records; raises InputError where they do not fit the models."""
    directory = this.made["prepare"].directory / "records"
    tokenizer = prepare.load_tokenizer(directory)
    check_model_vocabularies(this.config, tokenizer.size)
    # A sentence that the evaluation refuses should not be found out after the training.
    introspection.one_sentence(
        tokenizer, this.config.evaluate.fill_mask_text, this.config.data.max_seq_length
    )
    return curriculum.Setting(
        this.config,
        this.layout,
        prepare.open_documents(directory, "train"),
        Vocabulary.of(tokenizer),
    )


def load_teacher(this: Run, stage: str, shared: curriculum.Setting) -> Params:
    """Returns the teacher's parameters as `stage` reads them, not to be trained.

    Raises InputError for a given teacher that does not fit, Damaged when the checkpoint does not
    agree with its checksums.
    """
    config = this.config
    if config.teacher.path:
        tokenizer = _tokenizer(this)
        imported_teacher.check(config, this.made["teacher"], this.made["prepare"], tokenizer.digest)
    abstract = state_lib.abstract_teacher(shared.watched_teacher(stage), this.layout)
    return _load(this, "teacher", abstract)


def load_student(this: Run, stage: str, shared: curriculum.Setting) -> Params:
    """Returns the final parameters of a finished stage that trained the student's network.

    Raises Damaged when its checkpoint does not agree with its checksums.
    """
    abstract = state_lib.abstract_params(shared.network(this.config.student), this.layout)
    return _load(this, stage, abstract)


def _load(this: Run, stage: str, abstract: Params) -> Params:
    return checkpoint.load_params(this.made[stage].directory / "checkpoints", abstract)


def _teacher(this: Run, artifact: Artifact) -> dict[str, Any]:
    shared = setting(this)
    if not this.config.teacher.path:
        return _train(this, artifact, curriculum.teacher_training(shared))
    network, tokenizer = shared.network(this.config.teacher.model), _tokenizer(this)
    metrics = imported_teacher.import_into(
        artifact.directory, this.config, network, this.layout, tokenizer.digest
    )
    if processes.is_first():
        _keep_tokenizer(tokenizer, artifact.directory)
    return metrics


def _tokenizer(this: Run) -> Tokenizer:
    return prepare.load_tokenizer(this.made["prepare"].directory / "records")


def _transfer(this: Run, artifact: Artifact) -> dict[str, Any]:
    shared = setting(this)
    teacher = load_teacher(this, "transfer", shared)
    return _train(this, artifact, curriculum.transfer_training(shared, teacher))


def _distill(this: Run, artifact: Artifact) -> dict[str, Any]:
    shared = setting(this)
    teacher = load_teacher(this, "distill", shared)
    student = load_student(this, "transfer", shared) if "transfer" in this.made else None
    return _train(this, artifact, curriculum.distill_training(shared, teacher, student))


def _control(this: Run, artifact: Artifact) -> dict[str, Any]:
    shared = setting(this)
    teacher = load_teacher(this, "control", shared)
    return _train(this, artifact, curriculum.control_training(shared, teacher))


def _baseline(this: Run, artifact: Artifact) -> dict[str, Any]:
    return _train(this, artifact, curriculum.baseline_training(setting(this)))


def _train(this: Run, artifact: Artifact, training: Training) -> dict[str, Any]:
    config, mesh = this.config, this.layout.mesh
    tokenizer = _tokenizer(this)
    if config.execution.eval_every:
        directory = this.made["prepare"].directory / "records"
        held_out = prepare.open_documents(directory, "held_out")
        feed, batches = evaluate.held_out_feed(config, tokenizer, held_out, mesh)
        score = evaluate.held_out_scorer(training.network, feed, batches, mesh)
        training = training._replace(
            held_out=lambda params: {f"held_out/{k}": v for k, v in score(params).items()}
        )
    state = train(
        training,
        artifact.directory,
        config.execution,
        config.seed,
        this.layout,
        this.console,
        this.profile,
    )
    if processes.is_first():
        (artifact.directory / "parameters.txt").write_text(_as_text(masks.table(state.params)))
        _keep_tokenizer(tokenizer, artifact.directory)
    return {
        "steps": training.steps,
        "tokens": training.tokens,
        "goodput": goodput.summary(artifact.directory),
        "spikes": SkippedSteps(artifact.directory / "skipped.jsonl", limit=1).spikes(),
        "params_sha256": state_lib.params_digest(state.params),
        "tokenizer_digest": tokenizer.digest,
        "validation_fraction": this.made["prepare"].science["data.validation_fraction"],
    }


def _keep_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    # The folder is what others are given: with its vocabulary it can be used on its own.
    kept = storage.Written(directory / "tokenizer")
    tokenizer.save(kept.local)
    kept.keep()


def _as_text(table: rich.table.Table) -> str:
    console = rich.console.Console(width=120, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def _evaluate(this: Run, artifact: Artifact) -> dict[str, Any]:
    shared = setting(this)
    models = {}
    if "teacher" in artifact.inputs:
        network = shared.network(this.config.teacher.model)
        models["teacher"] = (network, load_teacher(this, "evaluate", shared))
    for role, stage in (("student", "distill"), ("control", "control"), ("baseline", "baseline")):
        if stage in artifact.inputs:
            network = shared.network(this.config.student)
            models[role] = (network, load_student(this, stage, shared))
    directory = this.made["prepare"].directory / "records"
    measured = evaluation.measure(
        this.config,
        models,
        prepare.load_tokenizer(directory),
        shared.documents,
        prepare.open_documents(directory, "held_out"),
        this.layout.mesh,
    )
    if processes.is_first():
        write_json(artifact.directory / "results.json", measured)
    return {"models": measured["models"], "unigram": measured["unigram"]}


def _finetune(this: Run, artifact: Artifact) -> dict[str, Any]:
    config = this.config
    networks = finetuning.networks_of(config, this.made)
    found = finetuning.run(
        config, this.layout, this.console, this.directory, networks, artifact.directory
    )
    return {"averages": found["averages"]}


def _export(this: Run, artifact: Artifact) -> dict[str, Any]:
    found = exporting.run(this.config, this.layout, this.console, this.made, artifact.directory)
    return {"networks": [network["name"] for network in found["networks"]]}


BODIES: dict[str, Callable[[Run, Artifact], dict[str, Any]]] = {
    "prepare": _prepare,
    "teacher": _teacher,
    "transfer": _transfer,
    "distill": _distill,
    "control": _control,
    "baseline": _baseline,
    "evaluate": _evaluate,
    "finetune": _finetune,
    "export": _export,
}
