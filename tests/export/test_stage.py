"""Networks leave as files at the end of a run, and are opened and fine-tuned again."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import yaml

import mobilebert_jax
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.export import card, formats
from mobilebert_jax.export.subjects import Subject
from mobilebert_jax.finetune import pretrained
from mobilebert_jax.inference import load
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.model import Model
from mobilebert_jax.pipeline import runner
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training.state import Layout
from tests import miniature
from tests.interop import exchanged

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]

ROWS = 48
LICENCE = "other: [see 'terms'"


def settings(folder: Path) -> dict[str, Any]:
    table = folder / "table.tsv"
    rows = [f"{word} pel dan\t{word[0]}\n" for word in ("kalo", "miren") * (ROWS // 2)]
    table.write_text("text\tlabel\n" + "".join(rows))
    return {
        "finetune__tasks": ("classify",),
        "finetune__files__train": str(table),
        "finetune__files__dev": str(table),
        "finetune__max_seq_length": 16,
        "finetune__search__batch_sizes": (8,),
        "finetune__search__learning_rates": (1e-2,),
        "finetune__search__epochs": (8,),
        "finetune__search__seeds": (0,),
        "data__max_seq_length": 16,
    }


def run(config: Config) -> str:
    console = miniature.console()
    runner.run(config, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ended")


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    """What a run with all stages printed."""
    lacking = next(name for name in formats.FORMATS if formats.missing(name))
    return run(
        miniature.experiment(
            folder,
            stages=("prepare", "teacher", "transfer", "distill", "finetune", "export"),
            export__formats=("huggingface", "mobilebert_jax", lacking),
            export__skip_missing=True,
            export__licence=LICENCE,
            **settings(folder),
        )
    )


@pytest.fixture(scope="module")
def runs(folder: Path, said: str) -> Path:
    return folder / "runs/tiny"


def one(runs: Path, pattern: str) -> Path:
    (found,) = runs.glob(pattern)
    return found


def check_equal(ours: Model, theirs: Model) -> None:
    assert (ours.kind, ours.labels) == (theirs.kind, theirs.labels)
    assert ours.tokenizer is not None and theirs.tokenizer is not None
    assert ours.tokenizer.encode(["kalo pel"]) == theirs.tokenizer.encode(["kalo pel"])
    assert jax.tree.structure(ours.params) == jax.tree.structure(theirs.params)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_every_network_leaves_with_its_card(runs: Path, said: str) -> None:
    export = one(runs, "export-*")
    found = json.loads((export / "export.json").read_text())
    assert [network["name"] for network in found["networks"]] == ["student", "classify-student"]
    assert len(found["left_out"]) == 1 and "is left out, because" in said
    for name, pattern in (("student", "distill-*"), ("classify-student", "trials/*")):
        own = load.open_model(one(runs, pattern))
        check_equal(own_format.read(export / name / "mobilebert_jax"), own)
        theirs = huggingface.read(export / name / "huggingface")
        assert theirs.kind == own.kind and theirs.labels == own.labels
        card = (export / name / "README.md").read_text()
        assert card == (export / name / "huggingface/README.md").read_text()
        head = yaml.safe_load(card.split("---\n")[1])
        assert head["license"] == LICENCE and head["tags"] == ["mobilebert"]
        assert "| blocks | 2 |" in card
        assert "| distill | 3 |" in card
    assert "classify-student" in (runs / "report.html").read_text()
    assert "finished before" in run_again(runs)


def run_again(runs: Path) -> str:
    manifest = json.loads(next(runs.glob("export-*/manifest.json")).read_text())
    chosen = manifest["science"]["export.formats"]
    folder = runs.parent.parent
    return run(
        miniature.experiment(
            folder,
            stages=("finetune", "export"),
            export__formats=tuple(chosen),
            export__skip_missing=True,
            export__licence=LICENCE,
            **settings(folder),
        )
    )


def test_a_format_whose_package_is_missing_stops_the_run_unless_it_may_be_left_out(
    runs: Path, folder: Path
) -> None:
    lacking = next(name for name in formats.FORMATS if formats.missing(name))
    config = miniature.experiment(
        folder, name="other", stages=("export",), export__model=str(runs),
        export__formats=(lacking,), **settings(folder),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"needs the package .* requirements-export\.txt"):
        run(config)


def test_networks_open_from_wherever_they_lie(runs: Path) -> None:
    export = one(runs, "export-*")
    student = load.open_model(one(runs, "distill-*"))
    check_equal(load.open_model(runs), student)
    check_equal(load.open_model(export / "student/mobilebert_jax"), student)
    check_equal(load.open_model(export / "student"), student)
    model, params, tokenizer, config = mobilebert_jax.load(one(runs, "trials/*"))
    assert config.num_hidden_layers == 2 and model.labels == ("k", "m")
    ids = np.array([[tokenizer.cls, *tokenizer.encode(["kalo pel dan"])[0], tokenizer.sep]])
    logits = model(params, ids, np.ones_like(ids), np.zeros_like(ids))["logits"]
    assert model.labels[int(logits.argmax())] == "k"
    with pytest.raises(InputError, match="holds no finished network"):
        load.open_model(runs.parent)
    with pytest.raises(InputError, match="holds no finished network"):
        load.open_model(one(runs, "prepare-*"))


def test_what_was_exported_is_fine_tuned_again_and_for_8_bits(runs: Path, tmp_path: Path) -> None:
    source = one(runs, "export-*/student/huggingface")
    again = miniature.experiment(
        tmp_path, stages=("finetune",), finetune__pretrained=str(source), **settings(tmp_path)
    )
    assert "accuracy 100.0" in run(again)
    trial = one(tmp_path / "runs/tiny", "trials/*")
    aware = miniature.experiment(
        tmp_path,
        name="aware",
        stages=("finetune",),
        finetune__pretrained=str(trial),
        finetune__quantized=True,
        **{**settings(tmp_path), "finetune__search__learning_rates": (1e-4,)},
    )
    # It goes on from the output layer that it had: these epochs at this rate learn nothing anew.
    assert "accuracy 100.0" in run(aware)
    folder = one(tmp_path / "runs/aware", "trials/*")
    own_format.write(load.open_model(folder), tmp_path / "without_ranges")
    layout = Layout(make_mesh(Mesh(data=1), jax.devices()[:1]))
    kept = pretrained.find("finetune.pretrained", str(folder))
    assert kept.made_as is not None
    ranges = kept.params(layout, kept.made_as.network)["blocks"]["input"]["input_range"]
    assert (ranges["lowest"] < 0).all() and (ranges["highest"] > 0).all()
    assert not np.isin(np.abs(ranges["highest"]), 6.0).any(), "calibrated"


def alone(folder: Path, model: Path, *chosen: str) -> Config:
    """Returns the export of a network that no run of this project made."""
    return miniature.experiment(
        folder, stages=("export",), export__model=str(model), export__formats=chosen
    )


@pytest.mark.parametrize(
    ("name", "last", "message"),
    [
        ("masks_padding", "litert_int8", "cannot become a full-integer file alone"),
        ("paper_form", "huggingface", "not for Hugging Face: query_key='block_input'"),
    ],
)
def test_what_is_impossible_is_said_before_anything_is_written(
    name: str, last: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (exchanged.CONFIGS | exchanged.OTHERS)[name]
    own_format.write(exchanged.make(config, "sequence_classification"), tmp_path / "network")
    monkeypatch.setattr(formats, "missing", lambda name: [])
    with pytest.raises(InputError, match=message):
        run(alone(tmp_path, tmp_path / "network", "mobilebert_jax", last))
    assert not list(tmp_path.glob("runs/tiny/export-*/network"))


def test_a_folder_is_there_whole_or_not_at_all_and_named_after_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exchanged.make(exchanged.CONFIGS["masks_padding"], "sequence_classification")
    own_format.write(model, tmp_path / "network")
    config = alone(tmp_path, tmp_path / "network", "mobilebert_jax")
    with monkeypatch.context() as patch:
        patch.setattr(card, "write", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config)
    export = one(tmp_path / "runs/tiny", "export-*")
    assert [path.name for path in export.iterdir()] == ["stage.json"]
    (export / ".network.killed.tmp").mkdir()
    (export / "network").mkdir()
    (export / "network/half").touch()
    run(config)
    assert {path.name for path in export.iterdir()} == {
        "stage.json", "manifest.json", "export.json", "network",
    }  # fmt: skip
    found = {path.name for path in (export / "network").iterdir()}
    assert found == {"mobilebert_jax", "README.md"}
    assert "finished before" in run(config)
    shutil.copytree(tmp_path / "network", tmp_path / "copy")
    run(alone(tmp_path, tmp_path / "copy", "mobilebert_jax"))
    assert one(tmp_path / "runs/tiny", "export-*/copy") != export / "network"


def test_a_folder_of_a_network_for_8_bits_says_that_it_is_in_float(tmp_path: Path) -> None:
    model = exchanged.make(exchanged.CONFIGS["relu6"], "sequence_classification")
    for quantized in (True, False):
        trial: Any = SimpleNamespace(quantized=quantized)
        subject = Subject("x", tmp_path, model, trial, None, 16, None)
        for name in ("huggingface", "mobilebert_jax"):
            notes = formats.write(name, subject, tmp_path / str(quantized))["notes"]
            assert any("computes in float32" in note for note in notes) == quantized
