"""Runs the stages of an experiment, hands artifacts on, and skips what is finished and unchanged.

prepare -> teacher -> transfer -> distill -> (control, baseline) -> evaluate -> (finetune)
-> (export)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import rich.console

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import Artifact
from mobilebert_jax.config import fused_attention
from mobilebert_jax.config.schema import STAGES, Config, InputError
from mobilebert_jax.config.stage_settings import science
from mobilebert_jax.config.validation import batch_sizes
from mobilebert_jax.data import corpus, prepare
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.distributed import processes
from mobilebert_jax.export import formats
from mobilebert_jax.finetune import pretrained, registry
from mobilebert_jax.finetune import stage as finetuning
from mobilebert_jax.inference import load
from mobilebert_jax.pipeline import imported_teacher
from mobilebert_jax.pipeline.stage_bodies import BODIES, Run, check_model_vocabularies, timed
from mobilebert_jax.report import results
from mobilebert_jax.sharding.cpu_features import uses_bfloat16_matmuls
from mobilebert_jax.sharding.gpu_features import check_fused_attention
from mobilebert_jax.sharding.mesh import check_batch, make_mesh
from mobilebert_jax.training import heartbeat, lock
from mobilebert_jax.training.checkpoint import Damaged
from mobilebert_jax.training.profiler import Window
from mobilebert_jax.training.state import Layout


def inputs_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Returns each stage that the experiment's outcome depends on, in order, with its inputs."""
    taught = config.transfer.strategy in ("progressive", "joint")
    graph: dict[str, tuple[str, ...]] = {"prepare": (), "teacher": ("prepare",)}
    if taught:
        graph["transfer"] = ("prepare", "teacher")
    graph["distill"] = ("prepare", "teacher", *(["transfer"] if taught else []))
    finetuned = finetuning.stages_needed(config) if "finetune" in config.stages else ()
    if config.transfer.strategy != "none" and "control" in (*config.stages, *finetuned):
        graph["control"] = ("prepare", "teacher")
    if "baseline" in (*config.stages, *finetuned):
        graph["baseline"] = ("prepare",)
    graph["evaluate"] = (
        "prepare",
        *(name for name in ("teacher", "distill", "control", "baseline") if name in graph),
    )
    graph["finetune"] = finetuned
    graph["export"] = _exported(config)
    wanted = [name for name in STAGES if name in config.stages and name in graph]
    for name in list(reversed(graph)):
        if name in wanted:
            wanted += [source for source in graph[name] if source not in wanted]
    return {name: graph[name] for name in STAGES if name in wanted}


def _exported(config: Config) -> tuple[str, ...]:
    """Returns the stages whose networks leave: what was fine-tuned, and a student of the run."""
    if config.export.model:
        return ()
    finetuned = ("finetune",) if "finetune" in config.stages else ()
    if finetuned and config.finetune.pretrained:
        return finetuned
    return ("prepare", "distill", *finetuned)


def publish(this: Run) -> None:
    """Writes the report of a run, and prints its summary."""
    if processes.is_first():
        results.publish(this.config, this.directory, this.made, this.console)


def run(
    config: Config,
    console: rich.console.Console,
    profile: Window | None = None,
    finish: Callable[[Run], None] = publish,
) -> None:
    """Runs every stage that `config.stages` names and that is not finished, then calls `finish`.

    Raises InputError for a mistake in configuration or input, before anything is computed where it
    can be known then.
    """
    storage.check(storage.path(config.execution.runs_dir))
    check_vocabulary(config)
    mesh = make_mesh(config.execution.mesh)
    _check_batches(config, mesh)
    _report_matmuls(config, mesh, console)
    this = Run(config, console, Layout(mesh, config.execution.fsdp_shard), profile)
    graph = inputs_of(config)
    plan = {name: _artifact(this, name, inputs) for name, inputs in graph.items()}
    _check_found(config, plan)
    _check_attention(config, mesh, plan)
    with lock.held(this.directory):
        while (damaged := _run_stages(this, plan)) is not None:
            artifacts.reopen(damaged)
        finish(this)
        processes.wait_for_all("end")


def _run_stages(this: Run, plan: dict[str, Artifact]) -> Artifact | None:
    """Runs what is not finished; returns a finished stage whose checkpoints turned out damaged."""
    for name, artifact in plan.items():
        if processes.agree(f"{name} is finished", artifact.is_finished):
            artifacts.check_files(artifact.directory)
            this.console.print(f"[dim]{name}: finished before, in {artifact.directory}[/]")
            continue
        if processes.is_first():
            _explain(artifact, this.console)
            artifacts.begin(artifact)
        processes.wait_for_all(f"{name} begins")
        try:
            metrics = timed(BODIES[name], this, artifact)
        except Damaged as error:
            damaged = (a for a in plan.values() if error.directory.parent == a.directory)
            source = next(damaged, None)
            if source is None or source.directory.parent != this.directory:
                raise InputError(str(error)) from error
            this.console.print(f"[yellow]{error}. The stage goes on from the one before[/]")
            return source
        if processes.is_first():
            artifacts.finish(artifact, metrics)
        processes.wait_for_all(f"{name} is finished")
        heartbeat.note(f"{name} is finished")
    return None


def _artifact(this: Run, stage: str, inputs: tuple[str, ...]) -> Artifact:
    """Returns the stage's artifact: one that the configuration names, or this run's own."""
    config = this.config
    digests = {name: this.made[name].digest for name in inputs}
    if stage == "prepare" and config.data.prepared:
        artifact = _prepared(storage.path(config.data.prepared))
    elif stage == "teacher" and config.teacher.path:
        artifact = imported_teacher.find(config, this.directory, digests)
    else:
        chosen = {**science(config, stage), **_contents(config, stage)}
        artifact = artifacts.declare(this.directory, stage, chosen, digests)
    this.made[stage] = artifact
    return artifact


def _contents(config: Config, stage: str) -> dict[str, Any]:
    """Returns what the stage finds outside the run, by its content."""
    if stage == "prepare":
        found = {"sources": processes.agree("sources", lambda: _sources(config))}
        if config.tokenizer.path:
            loaded = tokenizer_lib.load(config.tokenizer.path, config.tokenizer)
            found["tokenizer_digest"] = loaded.digest
        return found
    if stage == "finetune":
        return _finetune_inputs(config)
    if stage == "export":
        # With a package installed since, there is more to write.
        found = {"possible": [f for f in config.export.formats if not formats.missing(f)]}
        if config.export.model:
            found["model"] = load.digest_of(config.export.model)
            found["name"] = storage.path(config.export.model).name
        return found
    return {}


def _sources(config: Config) -> list[dict[str, Any]]:
    return corpus.fingerprints(config.data.source)


def _finetune_inputs(config: Config) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if config.finetune.pretrained:
        student = pretrained.find("finetune.pretrained", config.finetune.pretrained)
        chosen["pretrained_digest"] = student.digest
    chosen["sources"] = processes.agree(
        "tasks",
        lambda: {name: registry.fingerprint(name, config) for name in config.finetune.tasks},
    )
    return chosen


def _prepared(directory: Path) -> Artifact:
    artifact = artifacts.existing("prepare", directory)
    if artifact is None:
        raise InputError(
            f"data.prepared={str(directory)!r} is not the folder of a finished stage 'prepare'; it "
            "should be one like runs/<name>/prepare-<digest> that holds a manifest.json"
        )
    return artifact


def _check_found(config: Config, plan: dict[str, Artifact]) -> None:
    # From the end: what the wanted stage itself lacks says more than what that would need.
    for name, artifact in reversed(plan.items()):
        imported = name == "teacher" and config.teacher.path
        if name not in config.stages and artifact.manifest is None and not imported:
            needing = [stage for stage, found in plan.items() if name in found.inputs]
            needed_by = next((stage for stage in needing if stage in config.stages), needing[0])
            raise InputError(
                f"the stage '{needed_by}' needs the {name}, which is neither among the stages "
                f"{list(config.stages)} nor finished in {artifact.directory}; add '{name}' to "
                "stages"
                + (", or name a finished one with teacher.path" if name == "teacher" else "")
                + (
                    ", or name the folder of a finished one with finetune.pretrained"
                    if needed_by == "finetune" and name == "distill"
                    else ""
                )
            )


def _check_attention(config: Config, mesh: jax.sharding.Mesh, plan: dict[str, Artifact]) -> None:
    """Raises InputError where a stage that is to run cannot have the fused attention asked for."""
    check_fused_attention(config.execution, mesh, (config.teacher.model, config.student))
    if config.execution.attention_implementation == "cudnn":
        for stage, artifact in plan.items():
            for key, model in fused_attention.trained_with_dropout(config, stage).items():
                problem = fused_attention.dropout_problem(stage, key, model)
                if problem and not artifact.is_finished():
                    raise InputError(problem)


def check_vocabulary(config: Config) -> None:
    """Raises InputError where a given vocabulary does not fit the models or the records."""
    if not config.tokenizer.path:
        return
    loaded = tokenizer_lib.load(config.tokenizer.path, config.tokenizer)
    check_model_vocabularies(config, loaded.size)
    if (
        config.data.prepared
        and prepare.load_tokenizer(Path(config.data.prepared) / "records").digest != loaded.digest
    ):
        raise InputError(
            f"tokenizer.path={config.tokenizer.path!r} is not the tokenizer that made the records "
            f"in data.prepared={config.data.prepared!r}; leave tokenizer.path out, or prepare anew"
        )


def _report_matmuls(config: Config, mesh: jax.sharding.Mesh, console: rich.console.Console) -> None:
    """Says what `execution.cpu_matmul_dtype` came to where that depends on the processor."""
    wanted, rounded = config.execution.cpu_matmul_dtype, uses_bfloat16_matmuls(config, mesh)
    if wanted == "bfloat16" and not rounded:
        console.print(
            "[yellow]execution.cpu_matmul_dtype=bfloat16 has no effect here: these are not CPUs "
            "with instructions for bfloat16[/]"
        )
    elif wanted == "auto" and rounded:
        console.print(
            "training multiplies in bfloat16, which this CPU does faster "
            "(execution.cpu_matmul_dtype=auto)"
        )


def _check_batches(config: Config, mesh: jax.sharding.Mesh) -> None:
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    parts = rows * config.execution.micro_batches
    in_parts = "data x fsdp x micro_batches"
    for stage, size in batch_sizes(config):
        check_batch(f"{stage}.batch_size", size, parts, in_parts)
    if {"evaluate", "finetune"} & set(config.stages):
        check_batch("evaluate.batch_size", config.evaluate.batch_size, rows, "data x fsdp")
    if "finetune" in config.stages:
        for size in config.finetune.search.batch_sizes:
            check_batch("finetune.search.batch_sizes", size, parts, in_parts)


def _explain(artifact: Artifact, console: rich.console.Console) -> None:
    """Says why a stage is made although the run already holds one like it."""
    if (artifact.directory / "stage.json").exists():
        console.print(f"{artifact.stage}: going on in {artifact.directory}")
        return
    found = artifacts.differences(artifact)
    if found is None:
        console.print(f"{artifact.stage}: in {artifact.directory}")
        return
    other, changed = found
    console.print(
        f"{artifact.stage}: made anew in {artifact.directory}, because {'; '.join(changed)}. "
        f"The earlier one stays in {other}"
    )
