"""Teachers that the run does not train: networks from elsewhere, a BERT with other widths too."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mobilebert_jax
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.data import prepare
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.pipeline import dry_run, runner
from tests import miniature
from tests.interop import exchanged

pytestmark = pytest.mark.usefixtures("quick")

BERT = dataclasses.replace(
    sizes.BERT_BASE,
    max_position_embeddings=16,
    hidden_size=24,
    intra_bottleneck_size=24,
    embedding_size=24,
    intermediate_size=20,
    num_hidden_layers=3,
    num_attention_heads=3,
)
IB_BERT = dataclasses.replace(sizes.IB_BERT_LARGE, **miniature.NARROW)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has prepared its text."""
    folder = tmp_path_factory.mktemp("prepared")
    run(miniature.experiment(folder, stages=("prepare",)))
    return folder


def run(config: Config) -> str:
    console = miniature.console()
    runner.run(config, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as error:
        run(config)
    return str(error.value)


def found_in(folder: Path, stage: str) -> Path:
    (found,) = (folder / "runs/tiny").glob(f"{stage}-*")
    return found


def network(prepared: Path, model: ModelConfig, kind: Kind = "pretraining") -> Model:
    """Returns a network with the vocabulary of the prepared text."""
    tokenizer = prepare.load_tokenizer(found_in(prepared, "prepare") / "records")
    made = exchanged.make(dataclasses.replace(model, vocab_size=tokenizer.size), kind)
    return made._replace(tokenizer=tokenizer)


def experiment(prepared: Path, folder: Path, teacher: Path, **settings: Any) -> Config:
    given = {"data__prepared": str(found_in(prepared, "prepare")), "teacher__path": str(teacher)}
    return miniature.experiment(folder, **given, **settings)


def taught_by_bert(prepared: Path, folder: Path, teacher: Path, **settings: Any) -> Config:
    model = dataclasses.asdict(dataclasses.replace(BERT, vocab_size=0))
    sizes_of_bert = {f"teacher__model__{name}": value for name, value in model.items()}
    words_only = {"transfer__strategy": "none", "transfer__copy_embeddings": False}
    chosen = {"stages": ("distill", "evaluate"), **words_only, **sizes_of_bert, **settings}
    return experiment(prepared, folder, teacher, **chosen)


def test_a_bert_of_other_widths_teaches_its_words(prepared: Path, tmp_path: Path) -> None:
    bert = network(prepared, BERT)
    huggingface.write(bert, tmp_path / "bert")
    said = run(taught_by_bert(prepared, tmp_path, tmp_path / "bert"))
    assert "teacher: in" in said
    manifest = json.loads((found_in(tmp_path, "distill") / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"prepare", "teacher"} and manifest["steps"] == 3
    results = json.loads((found_in(tmp_path, "evaluate") / "results.json").read_text())
    assert set(results["models"]) == {"teacher", "student"}
    assert results["models"]["teacher"]["parameters"] == sizes.pretraining_parameters(bert.config)
    assert (tmp_path / "runs/tiny/report.html").exists()

    opened = mobilebert_jax.load(found_in(tmp_path, "teacher"))
    assert jax.tree.all(jax.tree.map(np.array_equal, opened.params, bert.params))
    again = run(taught_by_bert(prepared, tmp_path, tmp_path / "bert"))
    assert again.count("finished before") == 4

    bert.params["next_sentence"]["dense"]["bias"] += 1.0
    huggingface.write(bert, tmp_path / "other")
    said = run(taught_by_bert(prepared, tmp_path, tmp_path / "other"))
    assert "teacher: made anew" in said and "because imported changed" in said


@pytest.mark.slow
def test_a_teacher_in_our_own_format_teaches_every_layer(prepared: Path, tmp_path: Path) -> None:
    own_format.write(network(prepared, IB_BERT), tmp_path / "teacher")
    config = experiment(prepared, tmp_path, tmp_path / "teacher", stages=("transfer",))
    run(config)
    manifest = json.loads((found_in(tmp_path, "transfer") / "manifest.json").read_text())
    teacher = json.loads((found_in(tmp_path, "teacher") / "manifest.json").read_text())
    assert manifest["inputs"]["teacher"] == teacher["digest"] and manifest["steps"] == 6


def test_a_teacher_that_does_not_fit_is_refused(prepared: Path, tmp_path: Path) -> None:
    bert = network(prepared, BERT)
    assert bert.tokenizer is not None
    size = bert.tokenizer.size
    huggingface.write(bert, tmp_path / "bert")
    huggingface.write(network(prepared, BERT, "masked_lm"), tmp_path / "words")
    pieces = "".join(f"{piece}\n" for piece in reversed(bert.tokenizer.pieces(range(size))))
    huggingface.write(
        bert._replace(tokenizer=WordPiece(pieces.encode(), True, "a test")), tmp_path / "reversed"
    )
    message = refusal(
        taught_by_bert(prepared, tmp_path, tmp_path / "bert", teacher__model__intermediate_size=16)
    )
    assert "teacher.model.intermediate_size: it has 20, the configuration 16" in message
    # Seen before any text is prepared, by a dry run too.
    assert not list((tmp_path / "runs/tiny").glob("prepare-*"))
    wrong = taught_by_bert(
        prepared, tmp_path, tmp_path / "bert", teacher__model__intermediate_size=16
    )
    with pytest.raises(InputError, match=r"teacher\.model\.intermediate_size: it has 20"):
        dry_run.show(wrong, miniature.console())
    console = miniature.console()
    dry_run.show(taught_by_bert(prepared, tmp_path, tmp_path / "bert"), console)
    assert "as it is, " in console.file.getvalue()
    message = refusal(taught_by_bert(prepared, tmp_path, tmp_path / "words"))
    assert "it lacks next_sentence, the heads of pretraining" in message
    message = refusal(taught_by_bert(prepared, tmp_path, tmp_path / "reversed"))
    assert "it was trained with another tokenizer" in message and "tokenizer.path" in message
    message = refusal(taught_by_bert(prepared, tmp_path, tmp_path / "nowhere"))
    assert "is not the folder of a finished stage 'teacher'" in message
    assert "a folder of Hugging Face" in message
    assert not list((tmp_path / "runs/tiny").glob("distill-*"))
