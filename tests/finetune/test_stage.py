"""Fine-tuning from files to the report: every kind of task, from both kinds of source."""

import dataclasses
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

import mobilebert_jax
from mobilebert_jax.config.schema import GLUE_TASKS, SQUAD_TASKS, Config, InputError
from mobilebert_jax.exit_codes import NonFinite
from mobilebert_jax.finetune import stage
from mobilebert_jax.finetune import trial as trial_lib
from mobilebert_jax.finetune.glue import submission
from mobilebert_jax.inference import load
from mobilebert_jax.interop import own_format
from mobilebert_jax.pipeline import runner
from tests import miniature
from tests.finetune import tiny_tasks
from tests.finetune.tiny_tasks import SWEEP

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training stage."""
    folder = tmp_path_factory.mktemp("pretrained")
    run(miniature.experiment(folder, stages=("prepare", "teacher")))
    (found,) = (folder / "runs/tiny").glob("teacher-*")
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the official files of GLUE and SQuAD."""
    folder = tmp_path_factory.mktemp("files")
    tiny_tasks.write_glue(folder)
    tiny_tasks.write_squad(folder)
    return folder


Sweep = Callable[..., Config]


@pytest.fixture
def sweep(tmp_path: Path, pretrained: Path, files: Path) -> Sweep:
    """Makes configurations of fine-tuning alone whose runs lie in `tmp_path`."""

    def make(*tasks: str, **settings: Any) -> Config:
        given = {
            **SWEEP,
            "finetune__tasks": tasks,
            "finetune__pretrained": str(pretrained),
            "finetune__source": str(files),
            **settings,
        }
        return miniature.experiment(tmp_path, **given)

    return make


def run(config: Config) -> str:
    console = miniature.console()
    runner.run(config, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def outcome(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "runs/tiny/results.json").read_text())["finetune"]


def finetune_folder(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "runs/tiny").glob("finetune-*")
    return found


def trial_manifests(tmp_path: Path) -> dict[int, dict[str, Any]]:
    """Returns the manifests of all finished trials by seed."""
    paths = (tmp_path / "runs/tiny/trials").glob("*/manifest.json")
    found = [json.loads(path.read_text()) for path in paths]
    return {manifest["science"]["seed"]: manifest for manifest in found}


def metrics(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        task["task"]: {f["name"]: f["median"] for f in task["networks"][0]["metrics"]}
        for task in results["tasks"]
    }


def check_everything(results: dict[str, Any], folder: Path) -> None:
    """Checks the outcome of all tasks of GLUE and SQuAD."""
    assert [task["task"] for task in results["tasks"]] == [*GLUE_TASKS, *SQUAD_TASKS]
    values = [v for found in metrics(results).values() for v in found.values()]
    assert all(math.isfinite(v) and -100 <= v <= 100 for v in values)
    assert set(metrics(results)["mnli"]) == {"matched accuracy", "mismatched accuracy"}
    assert results["averages"]["student"]["official"] is True
    with zipfile.ZipFile(folder / "predictions/student/submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(submission.FILES.values())
        rows = archive.read("MNLI-mm.tsv").decode().splitlines()
        assert rows[0] == "index\tprediction" and len(rows) == 1 + tiny_tasks.ROWS["test"]
        assert {row.split("\t")[1] for row in rows[1:]} <= {
            "contradiction", "entailment", "neutral",
        }  # fmt: skip
    answers = json.loads(
        (folder / "predictions/student/squad_v2.0-dev-predictions.json").read_text()
    )
    assert len(answers) == 12


def test_tasks_run_from_their_official_files(sweep: Sweep, tmp_path: Path) -> None:
    said = run(sweep("sts-b", "squad_v2.0"))
    assert "GLUE average" in said
    found = metrics(outcome(tmp_path))
    assert set(found["sts-b"]) == {"pearson", "spearman"}
    assert {"exact", "f1", "best_f1"} <= set(found["squad_v2.0"])
    page = (tmp_path / "runs/tiny/report.html").read_text()
    assert "STS-B" in page and "79.2" in page  # the paper's F1 on SQuAD v2.0


@pytest.mark.slow
def test_every_task_runs_from_files_and_each_kind_from_datasets_with_the_same_metrics(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tasks.prepare_glue(tmp_path / "tfds")
    tiny_tasks.prepare_squad(tmp_path / "tfds")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    run(sweep(*GLUE_TASKS, *SQUAD_TASKS))
    check_everything(outcome(tmp_path), finetune_folder(tmp_path))
    from_files = outcome(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    # One of each kind: that TFDS gives the rows of the files is another test's matter.
    again = ("cola", "sts-b", "mnli", "squad_v1.1")
    run(sweep(*again, finetune__source="tfds"))
    assert metrics(outcome(tmp_path)) == {name: metrics(from_files)[name] for name in again}


def write_table(path: Path, rows: Sequence[tuple[str, Any]]) -> str:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return str(path)


def test_a_network_learns_the_classes_of_own_files(sweep: Sweep, tmp_path: Path) -> None:
    rows = [(f"{word} pel dan", word[0]) for word in ("kalo", "miren") * 24]
    said = run(
        sweep(
            "classify",
            finetune__files__train=write_table(tmp_path / "train.tsv", rows),
            finetune__files__dev=write_table(tmp_path / "dev.tsv", rows[:10]),
            finetune__files__test=write_table(tmp_path / "test.tsv", rows[:4]),
            finetune__search__epochs=(8,),
        )
    )
    # A test file with labels is scored too, but chooses nothing.
    wanted = {"accuracy": 100.0, "test accuracy": 100.0}
    assert metrics(outcome(tmp_path)) == {"classify": wanted}
    (network,) = outcome(tmp_path)["tasks"][0]["networks"]
    assert [figure["main"] for figure in network["metrics"]] == [True, False]
    predictions = finetune_folder(tmp_path) / "predictions/student/classify-test.tsv"
    found = [line.split("\t")[1] for line in predictions.read_text().splitlines()[1:]]
    assert found == ["k", "m", "k", "m"]
    assert "48 train, 10 dev, 4 test" in said


def test_a_trained_output_layer_is_kept_under_the_names_of_its_labels(
    sweep: Sweep, tmp_path: Path
) -> None:
    rows = [(f"{word} pel dan", word[0]) for word in ("kalo", "miren") * 24]
    files = {
        "finetune__files__train": write_table(tmp_path / "train.tsv", rows),
        "finetune__files__dev": write_table(tmp_path / "dev.tsv", rows[:10]),
    }
    run(sweep("classify", finetune__search__epochs=(8,), **files))
    (trial,) = (tmp_path / "runs/tiny/trials").iterdir()
    model = load.open_model(trial)
    assert model.labels == ("k", "m")
    dense = {name: array[..., ::-1] for name, array in model.params["task"]["dense"].items()}
    params = model.params | {"task": {"dense": dense}}
    turned = model._replace(params=jax.tree.map(np.asarray, params), labels=("M", "K"))
    own_format.write(turned, tmp_path / "published")

    settings = {
        "finetune__pretrained": str(tmp_path / "published"),
        "finetune__search__learning_rates": (1e-12,),
        "name": "second",
    }
    said = run(sweep("classify", **files, **settings))
    verdict = "output layer permuted, because its labels are those of the task in another order"
    assert f"student: {verdict}" in said
    results = json.loads((tmp_path / "runs/second/results.json").read_text())["finetune"]
    assert metrics(results) == {"classify": {"accuracy": 100.0}}
    assert results["tasks"][0]["networks"][0]["output_layer"] in verdict
    assert verdict in (tmp_path / "runs/second/report.html").read_text()


def test_numbers_in_any_unit_are_learnt_and_said(sweep: Sweep, tmp_path: Path) -> None:
    years = {"kalo": 1990.0, "miren": 2000.0, "stavo": 2020.0}
    table = write_table(
        tmp_path / "years.tsv", [(f"{word} dan", years[word]) for word in years] * 16
    )
    named = {"finetune__files__train": table, "finetune__files__dev": table}
    settings = {"finetune__files__kind": "number", "finetune__search__epochs": (12,), **named}
    said = run(sweep("classify", **settings))
    assert "48 years.tsv: rows that are among the training rows too" in said
    found = outcome(tmp_path)
    assert metrics(found)["classify"]["pearson"] > 98.0
    trial = tmp_path / "runs/tiny" / found["tasks"][0]["networks"][0]["folder"]
    lines = (trial / "predictions/dev-dev.tsv").read_text().splitlines()[1:4]
    predicted = [float(line.split("\t")[1]) for line in lines]
    assert predicted == pytest.approx(list(years.values()), abs=5.0)
    # So does whoever opens it, and training that goes on from it begins with what it knows.
    model, params, tokenizer, _ = mobilebert_jax.load(trial)
    ids = [tokenizer.cls, *tokenizer.encode(["kalo dan"])[0], tokenizer.sep]
    shape = {"input_ids": [ids], "input_mask": [[1] * len(ids)], "segment_ids": [[0] * len(ids)]}
    assert model(params, **shape)["logits"][0, 0] == pytest.approx(predicted[0], abs=0.1)
    further = {"finetune__pretrained": str(trial), "name": "further"}
    run(sweep("classify", **{**settings, **further, "finetune__search__epochs": (0,)}))
    again = json.loads((tmp_path / "runs/further/results.json").read_text())["finetune"]
    assert metrics(again)["classify"] == pytest.approx(metrics(found)["classify"], abs=1e-2)


@pytest.mark.slow
def test_tags_of_own_files_run_too(sweep: Sweep, tmp_path: Path) -> None:
    words = tmp_path / "words.conll"
    words.write_text("\n".join("kalo B-PER\nmiren I-PER\npel O\n" for _ in range(9)))
    named = {f"finetune__files__{split}": str(words) for split in ("train", "dev", "test")}
    run(sweep("tag", finetune__search__epochs=(8,), **named))
    found = metrics(outcome(tmp_path))["tag"]
    assert found["f1"] == found["test f1"] == 100.0


def test_settings_at_which_nothing_is_finite_are_named(sweep: Sweep) -> None:
    def diverging(config: Config) -> Config:
        """No setting allows such a rate; gradients of an unlucky network may act like one."""
        search = dataclasses.replace(config.finetune.search, learning_rates=(1e30,))
        return dataclasses.replace(
            config, finetune=dataclasses.replace(config.finetune, search=search)
        )

    with pytest.raises(NonFinite, match=r"rate 1e\+30, 1 epochs: no step of 2 was applied"):
        run(diverging(sweep("rte")))


def test_a_trial_that_left_out_most_steps_or_predicts_nothing_finite_is_no_result(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trial_lib.SkippedSteps, "nonfinite", lambda steps: {0, 1, 2})
        with pytest.raises(NonFinite, match="2 epochs: 3 of 4 steps were not finite and left out"):
            run(sweep("rte", finetune__search__epochs=(2,)))

    layer = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    params = {"task": {"dense": layer}}
    monkeypatch.setattr(trial_lib, "train", lambda *arguments: SimpleNamespace(params=params))
    monkeypatch.setattr(
        trial_lib, "predictor", lambda *a, **k: lambda params, rows: np.array([np.nan])
    )
    with pytest.raises(NonFinite, match="1 epochs: what the network says of dev rows"):
        run(sweep("rte"))


def test_steps_that_were_left_out_are_reported(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        trial_lib,
        "_train_and_score",
        lambda subject, trial, point, seed: {
            **fake_trial(trial.directory, point.learning_rate, seed),
            "skipped_steps": seed,
        },
    )
    seeds = {"finetune__search__learning_rates": (1e-3, 1e-2), "finetune__search__seeds": (0, 1, 2)}
    run(sweep("rte", **seeds))
    notes = outcome(tmp_path)["tasks"][0]["notes"]
    assert notes["steps of the student that were not finite and left out"] == 3
    assert "not finite and left out" in (tmp_path / "runs/tiny/report.html").read_text()


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_and_one_that_grows_runs_what_is_new(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = {"finetune__search__seeds": (0, 1, 2)}
    run(sweep("rte", **seeds))
    whole = {seed: m["params_sha256"] for seed, m in trial_manifests(tmp_path).items()}
    assert len(set(whole.values())) == 3
    shutil.rmtree(tmp_path / "runs")

    run_trial, count = trial_lib._train_and_score, 0

    def killed(*arguments: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return run_trial(*arguments)

    monkeypatch.setattr(trial_lib, "_train_and_score", killed)
    with pytest.raises(KeyboardInterrupt):
        run(sweep("rte", **seeds))
    assert list(trial_manifests(tmp_path)) == [0]
    run(sweep("rte", **seeds))
    assert count == 4  # one finished, one killed, two after the restart
    assert {s: m["params_sha256"] for s, m in trial_manifests(tmp_path).items()} == whole
    run(sweep("rte", finetune__search__seeds=(0, 1, 2, 3)))
    assert count == 5
    assert "finished before" in run(sweep("rte", **seeds)) and count == 5


def test_the_median_seed_is_reported_and_keeps_its_checkpoint(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        trial_lib,
        "_train_and_score",
        lambda subject, trial, point, seed: fake_trial(trial.directory, point.learning_rate, seed),
    )
    points = {
        "finetune__search__learning_rates": (1e-3, 1e-2),
        "finetune__search__seeds": (0, 1, 2),
    }
    run(sweep("rte", **points))
    (network,) = outcome(tmp_path)["tasks"][0]["networks"]
    assert network["point"]["learning_rate"] == 1e-2
    (figure,) = network["metrics"]
    assert (figure["median"], figure["minimum"], figure["maximum"]) == (61.0, 52.0, 99.0)
    made = tmp_path / "runs/tiny"
    manifest = json.loads((made / network["folder"] / "manifest.json").read_text())
    assert manifest["science"]["seed"] == 0
    kept = list((made / "trials").glob("*/checkpoints"))
    assert kept == [made / network["folder"] / "checkpoints"]
    # The rate that lost is now the only one: its checkpoints are gone, so a trial runs again.
    lost = next(p for p in (made / "trials").iterdir() if p.name != Path(network["folder"]).name)
    gone = refusal(sweep("rte", finetune__pretrained=str(lost)))
    assert f"{lost}: its parameters are gone" in gone and Path(network["folder"]).name in gone
    run(sweep("rte", **{**points, "finetune__search__learning_rates": (1e-3,)}))
    (network,) = outcome(tmp_path)["tasks"][0]["networks"]
    assert (made / network["folder"] / "checkpoints").is_dir()


def test_a_sweep_spares_what_another_reports_whatever_the_folder_is_called(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        trial_lib,
        "_train_and_score",
        lambda subject, trial, point, seed: fake_trial(trial.directory, point.learning_rate, seed),
    )
    run(sweep("rte", finetune__search__learning_rates=(1e-3,)))
    (network,) = outcome(tmp_path)["tasks"][0]["networks"]
    monkeypatch.chdir(tmp_path)
    rates = {"finetune__search__learning_rates": (1e-3, 1e-2), "execution__runs_dir": "runs"}
    run(sweep("rte", **rates))
    assert Path("runs/tiny", network["folder"], "checkpoints").is_dir()


def fake_trial(folder: Path, rate: float, seed: int) -> dict[str, Any]:
    for name in ("checkpoints/1", "predictions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints/1/file").write_text("parameters")
    scores = {1e-3: (60.0, 55.0, 50.0), 1e-2: (61.0, 99.0, 52.0)}
    return {"metrics": {"accuracy": scores[rate][seed]}, "steps": 1}


@pytest.mark.slow
def test_random_parameters_are_fine_tuned_beside_the_pretrained(
    sweep: Sweep, tmp_path: Path
) -> None:
    run(sweep("rte", finetune__networks=("student", "untrained")))
    student, untrained = outcome(tmp_path)["tasks"][0]["networks"]
    assert (student["network"], untrained["network"]) == ("student", "untrained")
    assert student["pretrained_digest"] and not untrained["pretrained_digest"]
    manifests = [
        json.loads(((tmp_path / "runs/tiny" / n["folder"]) / "manifest.json").read_text())
        for n in (student, untrained)
    ]
    assert manifests[0]["params_sha256"] != manifests[1]["params_sha256"]
    assert manifests[0]["inputs"]["pretrained"] == student["pretrained_digest"]


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as error:
        run(config)
    return str(error.value)


def test_what_cannot_be_fine_tuned_is_refused(
    sweep: Sweep, tmp_path: Path, pretrained: Path, files: Path
) -> None:
    nowhere = refusal(sweep("rte", finetune__pretrained=str(tmp_path)))
    assert "finetune.pretrained" in nowhere and "manifest.json" in nowhere
    alone = refusal(sweep("rte", finetune__pretrained=""))
    assert "finetune.pretrained" in alone and "distill" in alone
    long = refusal(sweep("rte", finetune__max_seq_length=32))
    assert "finetune.max_seq_length=32 exceeds the 16 positions of the student" in long
    other = tmp_path / "vocab.txt"
    other.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    vocabulary = refusal(sweep("rte", tokenizer__path=str(other), tokenizer__vocab_size=6))
    assert "is not the vocabulary of" in vocabulary
    torn = tmp_path / pretrained.name
    shutil.copytree(pretrained, torn)
    (newest,) = (torn / "checkpoints").glob("4")
    largest = max((newest / "params").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    assert "cannot be used" in refusal(sweep("rte", finetune__pretrained=str(torn)))
    broken = tmp_path / "broken"
    shutil.copytree(files / "RTE", broken / "RTE")
    with (broken / "RTE/dev.tsv").open("a") as file:
        file.write("9\tone column\n")
    assert "dev.tsv:8" in refusal(sweep("rte", finetune__source=str(broken)))
    missing = refusal(sweep("rte", finetune__source=str(tmp_path / "nothing")))
    assert "nothing/RTE/train.tsv is missing" in missing and "dl.fbaipublicfiles.com" in missing
    # The pretrained stage of these tests kept a fifth of its documents from training.
    seen = refusal(sweep("next_sentence", data__validation_fraction=0.3))
    assert "data.validation_fraction=0.3 there was 0.2" in seen


def test_mistakes_are_found_before_the_pretraining(sweep: Sweep, tmp_path: Path) -> None:
    stages_of = {"stages": ("prepare", "teacher", "transfer", "distill", "finetune")}
    nowhere = str(tmp_path / "nowhere")
    missing = refusal(sweep("rte", finetune__pretrained="", finetune__source=nowhere, **stages_of))
    assert "nowhere/RTE/train.tsv is missing" in missing
    assert not list((tmp_path / "runs/tiny").glob("prepare-*"))
    with pytest.raises(InputError, match="exceeds the 16 positions of the student"):
        sweep("rte", finetune__pretrained="", finetune__max_seq_length=32, **stages_of)


def test_networks_that_fused_attention_cannot_train_are_refused(
    sweep: Sweep, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sweep("rte", precision="bfloat16", execution__attention_implementation="cudnn")
    assert "runs on NVIDIA GPUs only" in refusal(config)
    for module in (runner, stage):
        monkeypatch.setattr(module, "check_fused_attention", lambda *_: None)
    heads = refusal(config)
    assert f"student in {pretrained}: model.num_attention_heads=2 makes" in heads
    monkeypatch.setattr(stage.fused_attention, "model_problem", lambda *_: None)
    assert "cannot drop out attention probabilities" in refusal(config)


def test_a_network_that_is_fine_tuned_needs_its_stage(sweep: Sweep) -> None:
    baseline = refusal(sweep("rte", finetune__networks=("student", "baseline")))
    assert "the stage 'finetune' needs the baseline" in baseline
