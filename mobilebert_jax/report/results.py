"""The report of a run: what its stages measured, how they came about, written and printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import rich.console

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import EXPORTED, FINETUNED, Artifact
from mobilebert_jax.config.schema import Config, flatten
from mobilebert_jax.report.page import write_report
from mobilebert_jax.report.summary import print_summary
from mobilebert_jax.training.metric_log import read_rows


def circumstances(config: Config, made: Mapping[str, Artifact]) -> dict[str, Any]:
    """Returns how the metrics came about: settings, digests, versions, times of the stages."""
    manifests = {name: found for name, artifact in made.items() if (found := artifact.manifest)}
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
        "digests": {name: artifact.digest for name, artifact in made.items()},
        "versions": {
            **artifacts.versions(),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        },
        "stages": stages,
    }


def publish(
    config: Config, run: Path, made: Mapping[str, Artifact], console: rich.console.Console
) -> None:
    """Writes the report of what was measured into `run`, and prints the summary.

    Does nothing for a run that neither evaluates nor fine-tunes nor exports.
    """
    measured: dict[str, Any] = {}
    if "evaluate" in made:
        measured = artifacts.read_json(made["evaluate"].directory / "results.json")
    if "finetune" in made:
        measured["finetune"] = artifacts.read_json(made["finetune"].directory / FINETUNED)
    if "export" in made:
        measured["export"] = artifacts.read_json(made["export"].directory / EXPORTED)
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
