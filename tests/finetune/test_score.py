"""Networks scored as they are: the figures of their training, and nothing where no layer fits."""

import json
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.pipeline import runner
from tests import miniature
from tests.finetune import tiny_tasks
from tests.finetune.tiny_tasks import SWEEP

pytestmark = pytest.mark.usefixtures("quick")

AS_IT_IS = {"name": "scored", "finetune__search__epochs": (0,)}


def run(folder: Path, **settings: Any) -> str:
    console = miniature.console()
    runner.run(miniature.experiment(folder, **{**SWEEP, **settings}), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def results(folder: Path, name: str = "tiny") -> dict[str, Any]:
    found = json.loads((folder / f"runs/{name}/results.json").read_text())["finetune"]
    (task,) = found["tasks"]
    (network,) = task["networks"]
    return {figure["name"]: figure["median"] for figure in network["metrics"]}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    runner.run(miniature.experiment(folder, stages=("prepare", "teacher")), miniature.console())
    (found,) = (folder / "runs/tiny").glob("teacher-*")
    return found


def trial_of(folder: Path) -> str:
    (found,) = (folder / "runs/tiny/trials").iterdir()
    return str(found)


def write_files(folder: Path, task: str) -> dict[str, Any]:
    """Writes the files of a task and returns the settings that name train and dev."""
    if task == "squad_v1.1":
        tiny_tasks.write_squad(folder)
        return {"finetune__source": str(folder)}
    content = {
        "classify": "text\tlabel\n" + "kalo pel\tk\nmiren dan\tm\n" * 8,
        "tag": "kalo\tO\nmiren\tB-X\n\nmiren\tB-X\ndan\tO\n\n" * 6,
    }[task]
    ending = {"classify": "tsv", "tag": "conll"}[task]
    for split in ("train", "dev"):
        (folder / f"{split}.{ending}").write_text(content)
    return {f"finetune__files__{s}": str(folder / f"{s}.{ending}") for s in ("train", "dev")}


@pytest.mark.parametrize(
    "task", ["classify", *(pytest.param(t, marks=pytest.mark.slow) for t in ("tag", "squad_v1.1"))]
)
def test_a_trial_scores_as_it_did_after_its_training(
    tmp_path: Path, pretrained: Path, task: str
) -> None:
    files = write_files(tmp_path, task)
    settings = {"finetune__tasks": (task,), "finetune__pretrained": str(pretrained), **files}
    run(tmp_path, finetune__search__epochs=(3,), **settings)
    trained = results(tmp_path)
    # Nothing is learnt, so nothing but the dev file is needed.
    if task == "squad_v1.1":
        settings |= {"finetune__files__dev": str(tmp_path / "dev-v1.1.json")}
        settings |= {"finetune__source": str(tmp_path / "nowhere")}
    else:
        settings |= {"finetune__files__train": ""}
    said = run(tmp_path, **(settings | AS_IT_IS | {"finetune__pretrained": trial_of(tmp_path)}))
    assert "student: as it is: " in said
    assert "among the training rows" not in said
    assert "output layer kept" in said
    assert results(tmp_path, "scored") == trained
    (folder,) = (tmp_path / "runs/scored").glob("finetune-*")
    assert list((folder / "predictions/student").iterdir())
    # A second start finds it finished.
    again = run(tmp_path, **(settings | AS_IT_IS | {"finetune__pretrained": trial_of(tmp_path)}))
    assert "finetune: finished before" in again


def test_a_network_without_an_output_layer_is_refused(tmp_path: Path, pretrained: Path) -> None:
    files = write_files(tmp_path, "classify")
    settings = {"finetune__tasks": ("classify",), "finetune__pretrained": str(pretrained), **files}
    with pytest.raises(InputError, match=r"output layer is not one for train\.tsv: it has none"):
        run(tmp_path, **(settings | AS_IT_IS))


def test_other_labels_are_refused_by_name(tmp_path: Path, pretrained: Path) -> None:
    files = write_files(tmp_path, "classify")
    settings = {"finetune__tasks": ("classify",), "finetune__pretrained": str(pretrained), **files}
    run(tmp_path, **settings)
    for split in ("train", "dev"):
        path = tmp_path / f"{split}.tsv"
        path.write_text(path.read_text().replace("\tk", "\tz"))
    settings |= AS_IT_IS | {"finetune__pretrained": trial_of(tmp_path)}
    with pytest.raises(InputError, match=r"its labels \('k', 'm'\) have other names"):
        run(tmp_path, **settings)


def test_random_parameters_have_no_score(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"take 0 out of finetune\.search\.epochs"):
        miniature.experiment(
            tmp_path, **(SWEEP | AS_IT_IS | {"finetune__networks": ("untrained",)})
        )
