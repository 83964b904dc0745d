"""Stage folders: what was made, of what, by which settings; finished ones are never made twice.

A stage lives in `runs/<name>/<stage>-<digest>/`. The digest covers the stage's science settings and
the digests of its inputs, so a changed setting leads to another folder and nothing is overwritten.
`stage.json` is written when work begins; `manifest.json`, last of all, when it is complete.
"""

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError

FORMAT = 1
"""Raised when older artifacts can no longer be read."""

FINETUNED = "finetune.json"
"""What the stage `finetune` leaves in its folder."""
EXPORTED = "export.json"
"""What the stage `export` leaves in its folder."""
RECORDED_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy")


class Artifact(NamedTuple):
    """One stage's folder with the settings and inputs that determine its content."""

    stage: str
    directory: Path
    digest: str
    science: dict[str, Any]
    inputs: dict[str, str]

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What is known of the finished stage, None while it is not finished; raises InputError as
        `read_json`."""
        path = self.directory / "manifest.json"
        return read_json(path) if path.exists() else None

    def is_finished(self) -> bool:
        return self.manifest is not None


def declare(
    run: Path, stage: str, science: Mapping[str, Any], inputs: Mapping[str, str]
) -> Artifact:
    """Returns the artifact of `stage` with these settings and inputs, finished or not."""
    content = {"format": FORMAT, "stage": stage, "science": dict(science), "inputs": dict(inputs)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Artifact(stage, run / f"{stage}-{digest[:8]}", digest, dict(science), dict(inputs))


def existing(stage: str, directory: Path) -> Artifact | None:
    """Returns the finished artifact of `stage` in `directory`, None if there is none."""
    found = manifest(directory)
    if found is None or found["stage"] != stage:
        return None
    return Artifact(stage, directory, found["digest"], found["science"], found["inputs"])


def manifest(directory: Path) -> dict[str, Any] | None:
    """Returns what `finish` wrote in `directory`, None if there is none, or another's file.

    Raises InputError where the file is damaged.
    """
    path = directory / "manifest.json"
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict):
        return None
    kinds = {"stage": str, "digest": str, "science": dict, "inputs": dict}
    return found if all(isinstance(found.get(key), kinds[key]) for key in kinds) else None


def begin(artifact: Artifact) -> None:
    """Creates the folder and writes what is about to be made."""
    storage.make_folder(artifact.directory)
    write_json(artifact.directory / "stage.json", _declaration(artifact))


def reopen(artifact: Artifact) -> None:
    """Takes the manifest of a finished stage away, so that the next start goes on with it."""
    (artifact.directory / "manifest.json").unlink(missing_ok=True)


def finish(artifact: Artifact, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest, after which the stage is finished, and returns it."""
    manifest = {
        **_declaration(artifact),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        **metrics,
    }
    write_json(artifact.directory / "manifest.json", manifest)
    return manifest


def _declaration(artifact: Artifact) -> dict[str, Any]:
    return {
        "stage": artifact.stage,
        "digest": artifact.digest,
        "science": artifact.science,
        "inputs": artifact.inputs,
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that numbers depend on."""
    packages = {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages}


def differences(artifact: Artifact) -> tuple[Path, list[str]] | None:
    """Returns the newest other folder of this stage in the run, and what differs from it.

    Each difference is a sentence with the old and the new value. None when there is no other.
    """
    others = [
        path
        for path in artifact.directory.parent.glob(f"{artifact.stage}-*/stage.json")
        if path.parent != artifact.directory
    ]
    if not others:
        return None
    newest = max(others, key=storage.modified)
    before = read_json(newest)
    changed = _changes(before["science"], artifact.science)
    changed += [
        f"its input {name} was made anew"
        for name, digest in artifact.inputs.items()
        if before["inputs"].get(name) != digest
    ]
    return newest.parent, changed


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    missing = object()
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key, missing), after.get(key, missing)
        if old == new:
            continue
        if old is missing or new is missing:
            found.append(f"{key} {'is new' if old is missing else 'is gone'}")
        elif max(len(str(old)), len(str(new))) > 80:
            found.append(f"{key} changed")
        else:
            found.append(f"{key} changed from {old!r} to {new!r}")
    return found


def read_json(path: Path) -> Any:
    """Returns what a file of a run holds; raises InputError where it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); copy it again, or remove it") from None


def write_json(path: Path, content: Any) -> None:
    """Writes `content` so that a reader sees the old file or the whole new one."""
    storage.write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
