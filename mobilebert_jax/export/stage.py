"""The stage `export`: every network in every format, each in a folder with its model card."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rich.console

from mobilebert_jax import artifacts, storage
from mobilebert_jax.artifacts import EXPORTED, Artifact, write_json
from mobilebert_jax.config.schema import FOLDER_FORMATS, Config
from mobilebert_jax.distributed import processes
from mobilebert_jax.export import card, formats, subjects
from mobilebert_jax.export.subjects import Subject
from mobilebert_jax.interop import folders
from mobilebert_jax.training.state import Layout


def run(
    config: Config,
    layout: Layout,
    console: rich.console.Console,
    made: Mapping[str, Artifact],
    folder: Path,
) -> dict[str, Any]:
    """Writes the networks into `folder`, each a folder of its own; returns what was measured.

    Leaves that in `folder` as `export.json` too.
    """
    chosen = _possible(config, console)
    left_out = [name for name in config.export.formats if name not in chosen]
    results: dict[str, Any] = {"networks": [], "left_out": left_out}
    found = subjects.found(config, layout, made)
    for subject in found:
        for name in chosen:
            formats.check(name, subject)
    for subject in found:
        if processes.is_first():
            history = _history(subject, made)
            results["networks"].append(_export(config, subject, chosen, history, folder, console))
        processes.wait_for_all(f"{subject.name} is exported")
    if processes.is_first():
        write_json(folder / EXPORTED, results)
    return results


def _possible(config: Config, console: rich.console.Console) -> list[str]:
    """Returns the formats whose packages are there, and says which are not."""
    chosen = []
    for name in config.export.formats:
        lacking = formats.missing(name)
        if lacking and config.export.skip_missing:
            console.print(
                f"export: {formats.FORMATS[name].title} is left out, because "
                f"{', '.join(lacking)} is not installed; .venv/bin/python -m pip install --no-deps "
                "-r requirements-export.txt brings it",
                soft_wrap=True,
            )
        else:
            chosen.append(name)
    return chosen


def _export(
    config: Config,
    subject: Subject,
    chosen: list[str],
    history: list[dict[str, Any]],
    folder: Path,
    console: rich.console.Console,
) -> dict[str, Any]:
    files = []
    with _written(folder / subject.name) as local:
        for name in chosen:
            processes.beat()
            files.append(formats.write(name, subject, local, config.export.int8_float_parts))
            console.print(_line(subject, files[-1]), soft_wrap=True, markup=False, highlight=False)
        programs = set(chosen) - set(FOLDER_FORMATS)
        beside = formats.write_beside(subject, local) if programs else []
        text = card.write(subject, files, beside, history, config.export.licence)
        (local / "README.md").write_text(text, encoding="utf-8")
        if (local / "huggingface").is_dir():
            (local / "huggingface/README.md").write_text(text, encoding="utf-8")
    trial = subject.trial
    return {
        "name": subject.name,
        "folder": str(folder / subject.name),
        "source": str(subject.folder),
        "task": trial.task if trial else "",
        "metrics": trial.metrics if trial else {},
        "files": files,
    }


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """Gives a folder on a disk to write in, which at the end becomes `folder`."""
    if storage.is_remote(folder):
        written = storage.Written(folder)
        yield written.local
        written.keep()
        return
    # What an export that was killed left here.
    shutil.rmtree(folder, ignore_errors=True)
    for half in folder.parent.glob(".*.tmp"):
        shutil.rmtree(half, ignore_errors=True)
    with folders.written(folder) as local:
        yield local


def _line(subject: Subject, file: dict[str, Any]) -> str:
    said = f"export {subject.name}: {file['file']}, {file['bytes'] / 1e6:.1f} MB"
    if "differences" in file:
        worst = max(found["max_rel"] for found in file["differences"].values())
        said += f", differs by {worst:.1e} of the largest output"
    if "app" in file:
        app = file["app"]
        said += f", opens in {app['task']}" if app["task"] else f", for no app: {app['obstacle']}"
    if "metrics" in file:
        assert subject.trial is not None
        said += "".join(
            f", {name} {value:.1f} (trained {subject.trial.metrics[name]:.1f})"
            for name, value in file["metrics"].items()
        )
    return said


def _history(subject: Subject, made: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Returns the manifests of the stages behind a network, those of this run first."""
    found = [
        manifest
        for name in ("prepare", "teacher", "transfer", "distill")
        if name in made and (manifest := made[name].manifest)
    ]
    own = artifacts.manifest(subject.folder)
    if own is not None and own["digest"] not in [other["digest"] for other in found]:
        found.append(own)
    return found
