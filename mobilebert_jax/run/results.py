"""The outcome of an experiment: figures of all networks on held-out documents, and their report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import rich.console

from mobilebert_jax import artefacts, storage
from mobilebert_jax.artefacts import Artefact
from mobilebert_jax.config import Config, flatten
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.pretraining import Documents
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.model import sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.losses import Params
from mobilebert_jax.partition import rules
from mobilebert_jax.run import evaluate, inspect
from mobilebert_jax.run.meters import read_rows
from mobilebert_jax.run.report import write_report
from mobilebert_jax.run.summary import print_summary
from mobilebert_jax.train import to_devices

STUDENT_ROLES = {
    "progressive": "student: layer-wise transfer, then distillation",
    "joint": "student: transfer of all layers at once, then distillation",
    "auxiliary": "student: transfer and distillation together",
    "none": "student: distillation only",
}
FINETUNED = "finetune.json"
"""What the stage `finetune` leaves in its folder."""
EXPORTED = "export.json"
"""What the stage `export` leaves in its folder."""
HELD_OUT_SEED = 0
"""The same held-out examples and masks for every seed, so that runs can be compared."""


def measure(
    config: Config,
    models: Mapping[str, tuple[Network, Params]],
    tokenizer: Tokenizer,
    training: Sequence[Documents],
    held_out: Sequence[Documents],
    mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
    """Returns every figure of the report that has to be computed, by role of the network."""
    feed, batches = held_out_feed(config, tokenizer, held_out, mesh)
    whole_feed, _ = held_out_feed(config, tokenizer, held_out, None)
    figures: dict[str, Any] = {
        "examples": batches * config.evaluate.batch_size,
        "unigram": evaluate.unigram_scores(training, whole_feed, batches, tokenizer.size),
        "models": {},
        "feature_rms": {},
    }
    sentence = inspect.one_sentence(tokenizer, config.evaluate.sentence, config.data.length)
    maps, guesses = {}, {}
    roles = {
        "teacher": "teacher",
        "student": STUDENT_ROLES[config.transfer.strategy],
        "control": "the same without layer-wise transfer",
        "twin": "the same network from scratch",
    }
    for role, (network, params) in models.items():
        figures["models"][role] = {
            "role": roles[role],
            **size_figures(network.config, config.data.length),
            **evaluate.with_attention_worth(network, feed, batches, mesh)(params),
        }
        figures["feature_rms"][role] = inspect.feature_rms(
            network, params, to_devices(feed, feed[0], mesh)
        )
        guesses[role] = inspect.fill_mask(network, params, sentence, tokenizer)
        if role in ("teacher", "student"):
            maps[role] = inspect.attention_maps(network, params, sentence).round(4).tolist()
    pieces = tokenizer.pieces(sentence["input_ids"][0].tolist())
    figures["attention"] = {"pieces": pieces, **maps}
    figures["fill_mask"] = {"sentence": config.evaluate.sentence, "models": guesses}
    return figures


def held_out_feed(
    config: Config,
    tokenizer: Tokenizer,
    held_out: Sequence[Documents],
    mesh: jax.sharding.Mesh | None,
) -> tuple[Feed, int]:
    """Returns the held-out examples of the run, and how many batches of them are measured.

    With a mesh they are this process's rows, without one all of them.
    """
    batch_size = config.evaluate.batch_size
    feed = Feed(
        held_out,
        Vocabulary.of(tokenizer),
        config.data,
        batch_size=batch_size,
        seed=HELD_OUT_SEED,
        rows=rules.rows_of_process(mesh, batch_size) if mesh is not None else None,
    )
    return feed, -(-config.evaluate.examples // batch_size)


def size_figures(model: sizes.ModelConfig, length: int) -> dict[str, Any]:
    """Returns parameter counts, size in megabytes (10^6 bytes) and forward GFLOPs a sequence."""
    parameters = sizes.pretraining_parameters(model)
    return {
        "parameters": parameters,
        "encoder_parameters": sizes.encoder_parameters(model),
        "megabytes_float32": parameters * 4 / 1e6,
        "forward_gflops": sizes.forward_flops(model, length) / 1e9,
    }


def circumstances(config: Config, made: Mapping[str, Artefact]) -> dict[str, Any]:
    """Returns how the figures came about: settings, digests, versions, times of the stages."""
    manifests = {name: found for name, artefact in made.items() if (found := artefact.manifest)}
    stages = [
        {
            "name": name,
            "steps": manifest.get("steps", 0),
            "seconds": manifest["seconds"],
            "tokens": manifest.get("tokens", 0),
            "tokens_per_s": manifest.get("tokens", 0) / manifest["seconds"],
            "digest": made[name].digest,
            "directory": str(made[name].directory),
        }
        for name, manifest in manifests.items()
    ]
    return {
        "name": config.name,
        "seed": config.seed,
        "created": max(manifest["finished"] for manifest in manifests.values()),
        "config": flatten(config),
        "digests": {name: artefact.digest for name, artefact in made.items()},
        "versions": {
            **artefacts.versions(),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        },
        "stages": stages,
    }


def publish(
    config: Config, run: Path, made: Mapping[str, Artefact], console: rich.console.Console
) -> None:
    """Writes the report of what was measured into `run`, and prints the summary.

    Does nothing for a run that neither evaluates nor fine-tunes nor exports.
    """
    measured: dict[str, Any] = {}
    if "evaluate" in made:
        measured = artefacts.read_json(made["evaluate"].directory / "results.json")
    if "finetune" in made:
        measured["finetune"] = artefacts.read_json(made["finetune"].directory / FINETUNED)
    if "export" in made:
        measured["export"] = artefacts.read_json(made["export"].directory / EXPORTED)
    if not measured:
        return
    measured |= circumstances(config, made)
    curves = {
        stage["name"]: read_rows(path)
        for stage in measured["stages"]
        if (path := storage.path(stage["directory"]) / "metrics.jsonl").exists()
    }
    write_report(measured, curves, run / "report.html")
    print_summary(measured, console, report=run / "report.html")
