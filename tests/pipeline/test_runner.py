"""A whole experiment in miniature: what every stage leaves behind, skips, redoes and refuses."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.pipeline import runner
from mobilebert_jax.training.metric_log import read_rows
from tests import miniature

pytestmark = pytest.mark.usefixtures("quick")

PIPELINE = ("prepare", "teacher", "transfer", "distill", "control", "baseline", "evaluate")
STEPS = {"teacher": 4, "transfer": 6, "distill": 3, "control": 9, "baseline": 9}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment that has run once."""
    folder = tmp_path_factory.mktemp("whole")
    run(miniature.experiment(folder, stages=PIPELINE))
    return folder


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Callable[..., Config]:
    """Makes configurations that go on with a copy of the finished run in `tmp_path`."""
    shutil.copytree(whole / "runs", tmp_path / "runs")
    runs_dir = str(tmp_path / "runs")
    return lambda **settings: miniature.experiment(
        whole, **{"execution__runs_dir": runs_dir, "stages": PIPELINE, **settings}
    )


def run(config: Config) -> str:
    console = miniature.console()
    runner.run(config, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as error:
        run(config)
    return str(error.value)


def folder_of(folder: Path, stage: str) -> Path:
    (found,) = (folder / "runs/tiny").glob(f"{stage}-*")
    return found


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((folder_of(folder, stage) / "manifest.json").read_text())


def written(folder: Path) -> dict[Path, int]:
    """When each file of the stages was written; the report is written at every start."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".html" and path.name not in ("curves.json", ".lock")
    }


def test_every_stage_leaves_a_manifest_with_its_inputs(whole: Path) -> None:
    made = {stage: manifest(whole, stage) for stage in PIPELINE}
    for stage, found in made.items():
        assert found["stage"] == stage
        assert found["digest"].startswith(folder_of(whole, stage).name.split("-")[1])
        assert found["seconds"] > 0
        for name, digest in found["inputs"].items():
            assert digest == made[name]["digest"]
    assert set(made["distill"]["inputs"]) == {"prepare", "teacher", "transfer"}
    assert set(made["control"]["inputs"]) == {"prepare", "teacher"}
    assert set(made["baseline"]["inputs"]) == {"prepare"}
    assert len({made[stage]["tokenizer_digest"] for stage in STEPS}) == 1
    assert len({made[stage]["params_sha256"] for stage in STEPS}) == len(STEPS)


@pytest.mark.parametrize("stage", STEPS)
def test_every_training_stage_leaves_its_record(whole: Path, stage: str) -> None:
    directory = folder_of(whole, stage)
    rows = read_rows(directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS[stage]))
    assert all(math.isfinite(row["loss"]) and row["nonfinite"] == 0 for row in rows)
    assert list((directory / "tensorboard").glob("events.out.tfevents.*"))
    assert "embeddings" in (directory / "parameters.txt").read_text()
    assert not (directory / "skipped.jsonl").exists()
    kept = {int(path.name) for path in (directory / "checkpoints").iterdir() if path.is_dir()}
    assert max(kept) == STEPS[stage] and len(kept) == 2
    assert manifest(whole, stage)["steps"] == STEPS[stage]
    assert manifest(whole, stage)["tokens"] == STEPS[stage] * 8 * 16


def test_transfer_teaches_one_layer_after_the_other(whole: Path) -> None:
    rows = read_rows(folder_of(whole, "transfer") / "metrics.jsonl")
    assert [row["layer"] for row in rows] == [0, 0, 0, 0, 1, 1]
    assert {"feature_map", "mean", "variance", "attention"} <= set(rows[0])


def test_the_report_and_its_metrics(whole: Path) -> None:
    results = json.loads((whole / "runs/tiny/results.json").read_text())
    assert set(results["models"]) == {"teacher", "student", "control", "baseline"}
    assert results["examples"] == 16
    for scores in results["models"].values():
        assert 0 < scores["masked_lm_loss"] < 2 * math.log(120)
        assert 0 <= scores["next_sentence_accuracy"] <= 1
        worth = scores["uniform_attention_loss"] - scores["masked_lm_loss"]
        assert scores["attention_worth"] == pytest.approx(worth)
    assert [s["name"] for s in results["stages"]] == list(PIPELINE)
    assert results["digests"]["distill"] == manifest(whole, "distill")["digest"]
    assert results["config"]["distill.steps"] == 3
    page = (whole / "runs/tiny/report.html").read_text()
    assert page.startswith("<!") and "</html>" in page
    assert json.loads((whole / "runs/tiny/curves.json").read_text())["baseline"]


def test_a_second_start_makes_nothing_and_the_same_report(
    again: Callable[..., Config], tmp_path: Path
) -> None:
    # The copy lies elsewhere; its first report names its own folders.
    run(again())
    before = written(tmp_path / "runs/tiny")
    page = (tmp_path / "runs/tiny/report.html").read_text()
    (tmp_path / "runs/tiny/report.html").unlink()
    said = run(again())
    for stage in PIPELINE:
        assert f"{stage}: finished before, in " in said
    changed = {p for p, at in written(tmp_path / "runs/tiny").items() if before.get(p) != at}
    assert {path.name for path in changed} <= {"results.json"}
    assert (tmp_path / "runs/tiny/report.html").read_text() == page


def test_execution_settings_make_nothing_anew(again: Callable[..., Config], tmp_path: Path) -> None:
    said = run(again(execution__log_every=7, execution__remat="full"))
    assert said.count("finished before") == len(PIPELINE)


def test_a_changed_setting_redoes_what_depends_on_it_and_says_so(
    again: Callable[..., Config], tmp_path: Path
) -> None:
    earlier = folder_of(tmp_path, "distill")
    said = run(again(distill__alpha=0.25))
    for stage in ("prepare", "teacher", "transfer", "baseline"):
        assert f"{stage}: finished before" in said
    assert "because distill.alpha changed from 0.5 to 0.25." in said
    assert f"The earlier one stays in {earlier}" in said
    assert "evaluate: made anew" in said and "its input distill was made anew" in said
    for stage in ("distill", "control"):
        assert len(list((tmp_path / "runs/tiny").glob(f"{stage}-*"))) == 2
    assert (earlier / "manifest.json").exists()
    assert len(list((tmp_path / "runs/tiny").glob("[!.]*"))) == len(PIPELINE) + 3 + 3
    assert run(again()).count("finished before") == len(PIPELINE)


def test_changed_text_makes_everything_anew(tmp_path: Path) -> None:
    config = miniature.experiment(tmp_path, stages=("prepare",))
    run(config)
    assert "prepare: finished before" in run(config)
    miniature.write_corpus(tmp_path / "text.txt", seed=1)
    message = refusal(miniature.experiment(tmp_path, stages=("teacher",)))
    assert "'teacher' needs the prepare" in message
    assert "prepare: made anew" in (said := run(config)) and "because sources changed" in said


MISSING = [
    (("teacher",), "'teacher' needs the prepare"),
    (("transfer",), "'transfer' needs the teacher"),
    (("prepare", "transfer"), "'transfer' needs the teacher"),
    (("prepare", "teacher", "distill"), "'distill' needs the transfer"),
    (("prepare", "teacher", "evaluate"), "'evaluate' needs the distill"),
    (("prepare", "teacher", "transfer", "evaluate"), "'evaluate' needs the distill"),
]


@pytest.mark.parametrize(("chosen", "message"), MISSING)
def test_a_missing_stage_is_found_before_anything_is_computed(
    chosen: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    refused = refusal(miniature.experiment(tmp_path, stages=chosen))
    assert message in refused
    assert ("teacher.path" in refused) == (message.endswith("teacher"))
    assert not (tmp_path / "runs/tiny").exists()


def test_records_and_teacher_of_another_run_are_used(whole: Path, tmp_path: Path) -> None:
    given = {
        "data__prepared": str(folder_of(whole, "prepare")),
        "teacher__path": str(folder_of(whole, "teacher")),
    }
    said = run(miniature.experiment(tmp_path, **given, stages=("teacher", "transfer")))
    assert f"teacher: finished before, in {folder_of(whole, 'teacher')}" in said
    assert [p.name.split("-")[0] for p in (tmp_path / "runs/tiny").glob("[!.]*")] == ["transfer"]
    inputs = manifest(tmp_path, "transfer")["inputs"]
    assert inputs["teacher"] == manifest(whole, "teacher")["digest"]


def test_a_folder_that_is_no_finished_stage_is_refused(whole: Path, tmp_path: Path) -> None:
    for key, path in (
        ("data__prepared", str(tmp_path / "nowhere")),
        ("data__prepared", str(folder_of(whole, "teacher"))),
        ("teacher__path", str(folder_of(whole, "prepare"))),
    ):
        message = refusal(miniature.experiment(tmp_path, **{key: path}))
        assert f"{key.replace('__', '.')}={path!r} is not the folder of a finished stage" in message


def test_a_given_teacher_of_another_width_is_refused(whole: Path, tmp_path: Path) -> None:
    config = miniature.experiment(
        tmp_path,
        data__prepared=str(folder_of(whole, "prepare")),
        teacher__path=str(folder_of(whole, "teacher")),
        teacher__model__intra_bottleneck_size=16,
        teacher__model__hidden_act="relu",
        stages=("transfer",),
    )
    message = refusal(config)
    assert "teacher.model.intra_bottleneck_size: it has 8, the configuration 16" in message
    assert "teacher.model.hidden_act: it has 'gelu_tanh', the configuration 'relu'" in message


def test_a_given_teacher_of_another_tokenizer_is_refused(whole: Path, tmp_path: Path) -> None:
    config = miniature.experiment(
        tmp_path,
        teacher__path=str(folder_of(whole, "teacher")),
        tokenizer__vocab_size=100,
        stages=("prepare", "transfer"),
    )
    assert "trained with another tokenizer" in refusal(config)


def test_a_given_tokenizer_must_be_that_of_the_given_records(whole: Path, tmp_path: Path) -> None:
    made = folder_of(whole, "prepare") / "records/tokenizer/vocab.txt"
    other = tmp_path / "vocab.txt"
    other.write_text(made.read_text() + "another\n")
    given = {"data__prepared": str(folder_of(whole, "prepare")), "stages": ("prepare",)}
    message = refusal(miniature.experiment(tmp_path, **given, tokenizer__path=str(other)))
    assert "is not the tokenizer that made the records" in message
    said = run(miniature.experiment(tmp_path, **given, tokenizer__path=str(made)))
    assert "prepare: finished before" in said


def test_a_model_smaller_than_the_vocabulary_is_refused(whole: Path, tmp_path: Path) -> None:
    vocabulary = folder_of(whole, "prepare") / "records/tokenizer/vocab.txt"
    pieces = len(vocabulary.read_text().splitlines())
    small = {"teacher__model__vocab_size": pieces - 1, "student__vocab_size": pieces - 1}
    expected = f"teacher.model.vocab_size={pieces - 1} is smaller than the tokenizer's {pieces}"
    config = miniature.experiment(tmp_path, **small, tokenizer__path=str(vocabulary))
    assert expected in refusal(config)
    assert not (tmp_path / "runs").exists()
    config = miniature.experiment(
        tmp_path,
        **small,
        tokenizer__vocab_size=50,  # of no account beside records that are given
        data__prepared=str(folder_of(whole, "prepare")),
    )
    assert expected in refusal(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"distill__batch_size": 12, "transfer__batch_size": 12},
            "transfer.batch_size=12 does not divide over data x fsdp x micro_batches = 8; "
            "the nearest that does is 16",
        ),
        (
            {"execution__micro_batches": 2},
            "teacher.batch_size=8 does not divide over data x fsdp x micro_batches = 16; "
            "the nearest that does is 16",
        ),
        (
            {"evaluate__batch_size": 3},
            "evaluate.batch_size=3 does not divide over data x fsdp = 8; "
            "the nearest that does is 8",
        ),
        ({"execution__mesh__data": 3}, "do not make up the 8 devices"),
    ],
)
def test_batches_that_do_not_divide_over_the_devices_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilebert_jax.sharding.mesh import make_mesh

    monkeypatch.setattr(runner, "make_mesh", make_mesh)
    assert message in refusal(miniature.experiment(tmp_path, **settings))
    assert not (tmp_path / "runs/tiny").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["joint", "auxiliary", "none"])
def test_the_other_strategies_run_through(
    strategy: str, again: Callable[..., Config], tmp_path: Path
) -> None:
    config = again(
        transfer__strategy=strategy,
        transfer__steps=2,
        distill__steps=2,
        stages=PIPELINE[:4],
    )
    said = run(config)
    assert "prepare: finished before" in said and "teacher: finished before" in said
    assert ("transfer: made anew" in said) == (strategy == "joint")
    (distilled,) = (
        path
        for path in (tmp_path / "runs/tiny").glob("distill-*")
        if json.loads((path / "manifest.json").read_text())["science"]["distill.steps"] == 2
    )
    rows = read_rows(distilled / "metrics.jsonl")
    assert len(rows) == (4 if strategy == "auxiliary" else 2)
    assert ("feature_map" in rows[0]) == (strategy == "auxiliary")
    assert {"masked_lm_loss", "distillation_loss"} <= set(rows[0])
