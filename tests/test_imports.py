"""Which room of the package may know of which: the rules of docs/reading.md, read from the code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.miniature import ROOT

PACKAGE = "mobilebert_jax"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))

RUNTIME = (
    "config",
    "data",
    "distributed",
    "model",
    "objective",
    "optimizer",
    "sharding",
    "training",
)
"""Rooms that a run is built of; they know nothing of what is built."""
BUILT = ("ablations", "export", "finetune", "inference", "interop", "pipeline", "plan", "report")
MOST_LINES = 350


def imported(file: Path) -> Iterator[str]:
    """Yields the dotted names of the package's modules that `file` imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(PACKAGE))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                path = ROOT.joinpath(*name.split("."))
                yield name if path.is_dir() or path.with_suffix(".py").exists() else node.module


def room_of(name: str) -> str:
    """Returns the folder below the package that a module lies in, or `top`."""
    parts = name.split(".")[1:]
    return parts[0] if parts and (ROOT / PACKAGE / parts[0]).is_dir() else "top"


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


ARROWS = {
    (module_of(file), name) for file in FILES for name in imported(file) if name != module_of(file)
}


def arrows(sources: tuple[str, ...], targets: tuple[str, ...]) -> list[str]:
    return sorted(
        f"{source} -> {target}"
        for source, target in ARROWS
        if room_of(source) in sources and room_of(target) in targets
    )


def test_imports_are_found() -> None:
    assert ("mobilebert_jax.pipeline.runner", "mobilebert_jax.pipeline.stage_bodies") in ARROWS
    assert ("mobilebert_jax.main", "mobilebert_jax.training.health") in ARROWS  # inside a function
    assert len(ARROWS) > 500


def test_the_runtime_knows_nothing_of_what_is_built_of_it() -> None:
    assert arrows(RUNTIME, BUILT) == []
    assert [
        arrow for arrow in arrows(RUNTIME, ("top",)) if arrow.endswith((".train", ".main"))
    ] == []


def test_the_report_reads_results_and_runs_nothing() -> None:
    others = tuple(room for room in (*RUNTIME, *BUILT) if room not in ("config", "report"))
    found = {arrow.split(" -> ")[1] for arrow in arrows(("report",), others)}
    assert found == {"mobilebert_jax.training.metric_log"}  # the format of metrics.jsonl


def test_inference_needs_tasks_only_as_files_and_features() -> None:
    found = {arrow.split(" -> ")[1] for arrow in arrows(("inference",), BUILT)}
    allowed = {
        *(f"finetune.{name}" for name in ("examples", "features", "finished_trial", "predict")),
        *(f"finetune.squad.{name}" for name in ("answers", "files", "windows")),
        "finetune.pretrained",
    }
    ours = {name for name in found if room_of(name) not in ("inference", "interop")}
    assert ours == {f"{PACKAGE}.{name}" for name in allowed}


def test_settings_are_read_without_jax() -> None:
    names = sorted(module_of(file) for file in FILES if room_of(module_of(file)) == "config")
    code = f"import sys, {', '.join(names)}; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_two_rooms_need_each_other() -> None:
    """Rooms of the runtime in one order; the others may only be entered from above."""
    pairs = {(room_of(a), room_of(b)) for a, b in ARROWS} - {("top", "top")}
    inside = {(a, b) for a, b in pairs if "top" not in (a, b) and a != b}
    assert {(a, b) for a, b in inside if (b, a) in inside} == set()


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_file_holds_one_idea(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES
