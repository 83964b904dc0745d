"""The part of `benchmarks.gpu` that runs the demo, every stage of it, with few steps.

It shows that each stage compiles, trains, saves and is read on a GPU; its losses mean nothing.
"""

import json
import shutil
import sys
from pathlib import Path

from benchmarks.kept_rows import KeptRows, Row

NAME = "gpu-demo"
RESULTS = "demo_results.json"

STEPS = {"teacher": 200, "transfer": 40, "distill": 40}
SETTINGS = {
    "evaluate.examples": 256,
    "finetune.networks": "student",
    "finetune.search.seeds": 0,
    # A program takes a GPU's compiler seconds, a stage's steps take less.
    "execution.precompile_phases": 4,
    "execution.student_scan_unroll": 1,
    "execution.teacher_scan_unroll": 1,
    "execution.teacher_train_scan_unroll": 1,
}
TINY_STEPS = {"teacher": 4, "transfer": 4, "distill": 4}
TINY = {"teacher.model.num_hidden_layers": 2, "student.num_hidden_layers": 2}


def command(records: Path, source: str, work: Path, *, tiny: bool) -> list[str]:
    """Returns the command line of the demo, on prepared records, with its runs in `work`.

    The task next_sentence reads `source`, the text that the records were made of.
    """
    steps = TINY_STEPS if tiny else STEPS
    settings = {
        "name": NAME,
        "data.prepared": records,
        "data.source": source,
        "execution.runs_dir": work / "runs",
        **{f"{stage}.steps": count for stage, count in steps.items()},
        **{f"{stage}.optimizer.warmup_steps": 2 for stage in ("teacher", "distill")},
        **SETTINGS,
        **(TINY if tiny else {}),
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "mobilebert_jax.main", "experiments/progressive_kt.py", *flags]


def is_finished(kept: KeptRows) -> bool:
    return "results" in kept.rows("demo")


def keep(kept: KeptRows, work: Path, call: int) -> None:
    """Keeps what is there of the demo: finished stages, and `results.json` once it is whole."""
    run = work / "runs" / NAME
    for path in sorted(run.glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        row: Row = {"seconds": manifest["seconds"], "steps": manifest.get("steps"), "call": call}
        kept.keep("demo", path.parent.name.split("-")[0], row)
    results = run / "results.json"
    if results.exists():
        shutil.copyfile(results, kept.path.with_name(RESULTS))
        kept.keep("demo", "results", {"file": RESULTS, "call": call})
