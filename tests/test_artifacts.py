"""Stage folders: what their digest depends on, what is said about changes, and what comes last."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax import artifacts
from mobilebert_jax.config.schema import STAGES, Config, InputError, flatten
from mobilebert_jax.config.stage_settings import EXAMPLE_SETTINGS, FOUND_BY_CONTENT, science
from mobilebert_jax.pipeline.runner import inputs_of
from tests.miniature import experiment

TRAINED = ("teacher", "transfer", "distill", "control", "baseline")
NOT_SCIENCE = ("execution.", "ablations.", "name", "stages")
NAMES_OF_ARTEFACTS = ("data.prepared", "teacher.path", *FOUND_BY_CONTENT)
"""These put another artifact in a stage's place, whose digest counts instead."""


def digests(config: Config) -> dict[str, str]:
    made: dict[str, str] = {}
    for stage, inputs in inputs_of(config).items():
        chosen = science(config, stage)
        made[stage] = artifacts.declare(
            Path("run"), stage, chosen, {name: made[name] for name in inputs}
        ).digest
    return made


def altered(part: Any, key: str) -> Any:
    """Returns the dataclass with the setting `key` changed to something of its type."""
    name, _, rest = key.partition(".")
    value = getattr(part, name)
    if rest:
        return dataclasses.replace(part, **{name: altered(value, rest)})
    if isinstance(value, bool):
        value = not value
    elif isinstance(value, int):
        value += 2
    elif isinstance(value, float):
        value += 0.125
    elif isinstance(value, str):
        value += "x"
    elif isinstance(value, tuple):
        value = (*value, *(value[:1] or ("x",)))
    return dataclasses.replace(part, **{name: value})


def concerned(key: str) -> set[str]:
    """Returns the stages whose own work the setting changes."""
    part, _, name = key.partition(".")
    if part in ("seed", "precision"):
        return set(TRAINED)
    if part == "data":
        return {*TRAINED, "evaluate"} if name in EXAMPLE_SETTINGS else {"prepare"}
    if key == "transfer.steps":  # where distillation's data begins, and how long others train
        return {"transfer", "distill", "control", "baseline"}
    if key == "transfer.copy_embeddings":
        return {"transfer", "control"}
    if part == "student":
        return {"transfer", "distill", "control", "baseline"}
    if part == "distill":
        taught = {"distill", "control"}
        return taught if name in ("alpha", "temperature") else {*taught, "baseline"}
    return {"prepare" if part == "tokenizer" else part}


def with_dependents(stages: set[str], config: Config) -> set[str]:
    graph = inputs_of(config)
    for stage in graph:  # in order, so that one pass reaches everything
        if stages & set(graph[stage]):
            stages = stages | {stage}
    return stages


def test_every_setting_changes_the_stages_it_concerns_and_no_others(tmp_path: Path) -> None:
    finetuned = {"finetune__tasks": ("next_sentence",), "finetune__max_seq_length": 16}
    config = experiment(tmp_path, stages=STAGES, **finetuned)
    before = digests(config)
    assert set(before) == set(STAGES)
    keys = [k for k in flatten(config) if k not in NAMES_OF_ARTEFACTS]
    keys.remove("transfer.strategy")  # decides which stages there are
    science_keys = [k for k in keys if not k.startswith(NOT_SCIENCE)]
    assert len(science_keys) > 110
    for key in science_keys:
        after = digests(altered(config, key))
        changed = {stage for stage in before if before[stage] != after[stage]}
        assert changed == with_dependents(concerned(key), config), key


def test_execution_and_name_change_no_digest(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    keys = [k for k in flatten(config) if k.startswith("execution.") or k == "name"]
    assert len(keys) > 10
    for key in keys:
        other = altered(config, key)
        assert flatten(other)[key] != flatten(config)[key]
        assert digests(other) == digests(config), key


def test_auxiliary_transfer_is_part_of_distillation(tmp_path: Path) -> None:
    config = experiment(tmp_path, transfer__strategy="auxiliary")
    before, after = digests(config), digests(altered(config, "transfer.mean_weight"))
    assert "transfer" not in before
    assert {s for s in before if before[s] != after[s]} == {"distill", "evaluate"}


def made(run: Path, chosen: dict[str, Any], inputs: dict[str, str]) -> artifacts.Artifact:
    artifact = artifacts.declare(run, "distill", chosen, inputs)
    artifacts.begin(artifact)
    return artifact


def test_differences_are_sentences_with_both_values(tmp_path: Path) -> None:
    long = "text:" + "/".join(["folder"] * 20)
    old = made(
        tmp_path, {"alpha": 0.5, "gone": 1, "source": long}, {"teacher": "a", "prepare": "p"}
    )
    new = artifacts.declare(
        tmp_path,
        "distill",
        {"alpha": 0.9, "added": 1, "source": "s"},
        {"teacher": "b", "prepare": "p"},
    )
    assert artifacts.differences(new) == (
        old.directory,
        [
            "added is new",
            "alpha changed from 0.5 to 0.9",
            "gone is gone",
            "source changed",
            "its input teacher was made anew",
        ],
    )


def test_differences_are_to_the_newest_other_folder(tmp_path: Path) -> None:
    for age, alpha in ((300, 0.1), (100, 0.2), (200, 0.3)):
        path = made(tmp_path, {"alpha": alpha}, {}).directory / "stage.json"
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    found = artifacts.differences(artifacts.declare(tmp_path, "distill", {"alpha": 0.4}, {}))
    assert found is not None and found[1] == ["alpha changed from 0.2 to 0.4"]


def test_there_is_nothing_to_differ_from_at_first(tmp_path: Path) -> None:
    only = made(tmp_path, {"alpha": 0.5}, {})
    assert artifacts.differences(only) is None


def test_the_manifest_is_there_only_when_all_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = made(tmp_path, {"alpha": 0.5}, {"teacher": "t"})
    assert artifact.manifest is None
    assert artifacts.existing("distill", artifact.directory) is None

    def killed(source: object, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        artifacts.finish(artifact, {"steps": 3})
    assert artifact.manifest is None
    artifacts.finish(artifact, {"steps": 3})
    assert artifact.manifest is not None
    assert artifact.manifest["steps"] == 3
    assert artifact.manifest["versions"]["jax"]
    assert artifacts.existing("distill", artifact.directory) == artifact
    assert artifacts.existing("teacher", artifact.directory) is None


def test_manifests_of_others_are_none_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for content in ("[]", "3", "{}", '{"stage": "distill"}', '{"stage": [1], "digest": "a"}'):
        path.write_text(content)
        assert artifacts.existing("distill", tmp_path) is None
    for damaged in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"manifest\.json: not JSON"):
            artifacts.Artifact("distill", tmp_path, "a", {}, {}).is_finished()
        with pytest.raises(InputError, match=r"manifest\.json: not JSON"):
            artifacts.existing("distill", tmp_path)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    artifacts.write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        artifacts.write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1}


def finished(run: Path) -> artifacts.Artifact:
    artifact = artifacts.declare(run, "evaluate", {"evaluate.examples": 8}, {"teacher": "0f"})
    artifacts.begin(artifact)
    (artifact.directory / "tokenizer").mkdir()
    for name in ("results.json", "tokenizer/vocab.txt", "events.out.1", "checkpoints/1/data"):
        path = artifact.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}\n")
    artifacts.finish(artifact, {"seconds": 1.5})
    return artifact


@pytest.mark.parametrize("name", ["results.json", "tokenizer/vocab.txt"])
def test_a_result_that_is_not_as_it_was_is_named(tmp_path: Path, name: str) -> None:
    artifact = finished(tmp_path)
    artifacts.check_files(artifact.directory)
    path = artifact.directory / name
    content = path.read_bytes()
    for damaged in (content[:-1], content[:3] + b"!" + content[4:], b"", content + b"\n"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"is damaged: its file {name} .* copy it again"):
            artifacts.check_files(artifact.directory)
    path.unlink()
    with pytest.raises(InputError, match=f"its file {name} is missing"):
        artifacts.check_files(artifact.directory)


@pytest.mark.parametrize("name", ["events.out.1", "checkpoints/1/data", "stage.json"])
def test_what_is_no_result_may_go(tmp_path: Path, name: str) -> None:
    artifact = finished(tmp_path)
    (artifact.directory / name).unlink()
    artifacts.check_files(artifact.directory)


def test_every_damage_to_a_manifest_is_noticed(tmp_path: Path) -> None:
    artifact = finished(tmp_path)
    path = artifact.directory / "manifest.json"
    content = path.read_bytes()
    assert artifact.is_finished()
    lines = content.splitlines(keepends=True)
    lost = [b"".join(lines[:i] + lines[i + 1 :]) for i in range(len(lines))]
    flipped = [
        content[:i] + bytes([content[i] ^ 2]) + content[i + 1 :] for i in range(0, len(content), 7)
    ]
    cut = [content[:i] for i in range(0, len(content) - 1, 50)]
    for damaged in (*lost, *flipped, *cut):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"manifest\.json"):
            artifact.is_finished()
    path.write_bytes(content)
    assert artifact.is_finished()
