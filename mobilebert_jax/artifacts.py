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

from mobilebert_jax import checksums, storage
from mobilebert_jax.config.schema import InputError

FORMAT = 1
"""Raised when older artifacts can no longer be read."""

FINETUNED = "finetune.json"
"""What the stage `finetune` leaves in its folder."""
EXPORTED = "export.json"
"""What the stage `export` leaves in its folder."""
REMEDY = "copy it again, or remove the folder to have it made anew"
UNCHECKED_FOLDERS = ("checkpoints", "damaged", "records", "profile")
"""Of a stage: with checksums of their own, or read by no stage."""
UNCHECKED_FILES = ("events.", ".")
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
        """What is known of the finished stage, None while it is not finished; raises InputError
        where the file is damaged."""
        found = manifest(self.directory)
        if found is None and (self.directory / "manifest.json").exists():
            raise InputError(f"{self.directory / 'manifest.json'} is not that of a stage; {REMEDY}")
        return found

    def is_finished(self) -> bool:
        return self.manifest is not None


def declare(
    run: Path, stage: str, science: Mapping[str, Any], inputs: Mapping[str, str]
) -> Artifact:
    """Returns the artifact of `stage` with these settings and inputs, finished or not."""
    content = {"format": FORMAT, "stage": stage, "science": dict(science), "inputs": dict(inputs)}
    digest = _checksum(content)
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
    if not all(isinstance(found.get(key), kinds[key]) for key in kinds):
        return None
    written = {key: value for key, value in found.items() if key != "checksum"}
    if found.get("checksum") != _checksum(written):
        raise InputError(f"{path} is not as it was written; {REMEDY}")
    return written


def begin(artifact: Artifact) -> None:
    """Creates the folder and writes what is about to be made."""
    storage.make_folder(artifact.directory)
    write_json(artifact.directory / "stage.json", _declaration(artifact))


def reopen(artifact: Artifact) -> None:
    """Takes the manifest of a finished stage away, so that the next start goes on with it."""
    (artifact.directory / "manifest.json").unlink(missing_ok=True)


def finish(artifact: Artifact, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest, after which the stage is finished, and returns it.

    It holds checksums of the stage's files, and one of itself. Checkpoints have their own.
    """
    manifest = {
        **_declaration(artifact),
        "files": checksums.listing(artifact.directory, _is_checked),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        **metrics,
    }
    write_json(artifact.directory / "manifest.json", {**manifest, "checksum": _checksum(manifest)})
    return manifest


def check_files(directory: Path) -> None:
    """Raises InputError where a file of the finished stage in `directory` is damaged or missing."""
    files = (manifest(directory) or {}).get("files", {})
    problems = checksums.differences(directory, files)
    if problems:
        raise InputError(
            f"{directory} is damaged: {'; '.join(problems[:3])}"
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
            + f"; {REMEDY}"
        )


def _is_checked(name: str) -> bool:
    """Whether a file counts as a result: no checkpoint, records, profile, events or lock."""
    top, _, below = name.partition("/")
    if below:
        return top not in UNCHECKED_FOLDERS
    return name not in ("stage.json", "manifest.json") and not name.startswith(UNCHECKED_FILES)


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
