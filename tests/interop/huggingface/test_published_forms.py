"""Models that are published, in the form in which they are: opened, asked, exported.

The folders are made here, with random weights and small sizes, but with the files, keys and old
spellings of the published ones.
"""

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.inference import __main__ as predict
from mobilebert_jax.inference import load
from mobilebert_jax.interop import parameter_names, reading
from mobilebert_jax.interop.huggingface import config as huggingface_config
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.huggingface import tokenizer
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.pipeline import runner
from tests import miniature
from tests.finetune import tiny_tasks
from tests.finetune.tiny_tasks import SWEEP
from tests.interop import exchanged
from tests.interop.huggingface import tokenizer_folders, torch_writer

EMOTIONS = ("others", "happy", "sad", "angry")


class Form(NamedTuple):
    """How a model is published."""

    kind: Kind
    labels: tuple[str, ...]
    tokenizer: Callable[[Path, str], None]
    language: str = "english"
    write: Callable[[Path, Any], None] = torch_writer.write_zip
    changes: tuple[tuple[str, Any], ...] = ()
    network: str = "released"
    spare: int = 0
    """Rows of the word table beyond the vocabulary."""


def bert_files(folder: Path, language: str) -> None:
    about = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    tokenizer_folders.vocabulary(folder, language, about)
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]"})
    )


def bare_vocabulary(folder: Path, language: str) -> None:
    tokenizer_folders.vocabulary(folder, language, {})
    (folder / "tokenizer_config.json").unlink()


ANSWERS: tuple[Kind, tuple[str, ...]] = ("question_answering", ("start", "end"))
FORMS = {
    "csarron/mobilebert-uncased-squad-v1": Form(*ANSWERS, bert_files),
    "csarron/mobilebert-uncased-squad-v2": Form(*ANSWERS, bert_files),
    "mrm8488/mobilebert-uncased-finetuned-squadv1": Form(
        *ANSWERS, bare_vocabulary, write=torch_writer.write_legacy
    ),
    "mrm8488/mobilebert-uncased-finetuned-squadv2": Form(
        *ANSWERS, bare_vocabulary, write=torch_writer.write_legacy
    ),
    "lordtt13/emo-mobilebert": Form(
        "sequence_classification",
        EMOTIONS,
        bert_files,
        write=torch_writer.write_legacy,
        changes=(("_num_labels", 4),),
    ),
    "cambridgeltl/sst_mobilebert-uncased": Form(
        "sequence_classification", ("LABEL_0", "LABEL_1"), bert_files
    ),
    "lifeweb-ai/shiraz": Form("masked_lm", (), tokenizer_folders.FORMS["zwnj_is_space"], "persian"),
    "google/mobilebert-uncased": Form("pretraining", (), bare_vocabulary),
    # Of squeezebert-uncased both have a word table of 30,528 rows for 30,522 pieces.
    "mrm8488/squeezebert-finetuned-squadv1": Form(
        *ANSWERS, bert_files, network="squeezebert", spare=6
    ),
    "mrm8488/squeezebert-finetuned-squadv2": Form(
        *ANSWERS, bert_files, network="squeezebert", spare=6
    ),
}


def publish(folder: Path, form: Form) -> None:
    """Writes a network with the tokenizer's vocabulary, as a pickle with what old files hold."""
    form.tokenizer(folder, form.language)
    made = tokenizer.read(folder)
    assert made is not None
    config = dataclasses.replace(
        exchanged.CONFIGS[form.network],
        vocab_size=made.size + form.spare,
        max_position_embeddings=64,
    )
    model = exchanged.make(config, form.kind, form.labels)
    content = huggingface_config.make(config, form.kind, form.labels, len(form.labels), 0)
    # Keys of releases of 2020, which are not written any more.
    content |= {"gradient_checkpointing": False, "output_past": True, **dict(form.changes)}
    (folder / "config.json").write_text(json.dumps(content))
    tensors = parameter_names.to_tensors(config, form.kind, "huggingface", model.params)
    (prefix,) = {n.split("embeddings.")[0] for n in tensors if "word_embeddings" in n}
    tensors[f"{prefix}embeddings.position_ids"] = np.arange(64)[None]
    form.write(folder / "pytorch_model.bin", torch_writer.tensors(tensors))


QUESTIONS = {
    "question_answering": ("answer", '{"question": "the film ?", "context": "the film was GOOD"}'),
    "sequence_classification": ("classify", "the film was GOOD"),
    "masked_lm": ("fill-mask", "[MASK] x"),
    "pretraining": ("fill-mask", "the film was [MASK]"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_published_model_opens_answers_and_leaves_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    form, folder = FORMS[name], tmp_path / name
    publish(folder, form)
    model, _ = reading.read(folder)
    assert model.kind == form.kind
    assert model.tokenizer is not None
    mode, question = QUESTIONS[form.kind]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(question.encode())))
    assert predict.main((mode, "--model", str(folder))) == 0
    (answer,) = map(json.loads, capsys.readouterr().out.splitlines())
    if form.kind == "sequence_classification":
        assert set(answer["scores"]) == set(form.labels)
    huggingface.write(model, tmp_path / "exported")
    again = huggingface.read(tmp_path / "exported")
    np.testing.assert_equal(again.params, model.params)
    assert again.tokenizer is not None
    text = "the film [E1]"
    assert again.tokenizer.encode([text]) == model.tokenizer.encode([text])


def test_the_japanese_one_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ysakuramoto/mobilebert-ja; with the packages it is compared in the parity tests."""
    tokenizer_folders.JAPANESE["mecab"](tmp_path, "japanese")
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(InputError, match=r"needs fugashi: .* install fugashi unidic-lite"):
        tokenizer.read(tmp_path)


SQUAD = [(name, f"squad_{name[-2:]}{end}") for name, end in (
    ("mrm8488/squeezebert-finetuned-squadv1", ".1"),
    ("mrm8488/squeezebert-finetuned-squadv2", ".0"),
)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "task"), SQUAD)
def test_a_published_squeezebert_is_scored_and_trained_further_with_its_head(
    tmp_path: Path, name: str, task: str
) -> None:
    folder = tmp_path / name
    publish(folder, FORMS[name])
    tiny_tasks.write_squad(tmp_path)

    def figures(**settings: Any) -> dict[str, float]:
        given = {
            **SWEEP,
            "finetune__tasks": (task,),
            "finetune__pretrained": str(folder),
            "finetune__source": str(tmp_path),
            **settings,
        }
        console = miniature.console()
        runner.run(miniature.experiment(tmp_path, **given), console)
        assert "output layer kept" in console.file.getvalue()  # type: ignore[attr-defined]
        run = tmp_path / "runs" / given.get("name", "tiny")
        (found,) = json.loads((run / "results.json").read_text())["finetune"]["tasks"]
        return {f["name"]: f["median"] for f in found["networks"][0]["metrics"]}

    as_it_is = figures(name="scored", finetune__search__epochs=(0,))
    assert figures(finetune__search__learning_rates=(1e-12,)) == as_it_is
    (trial,) = (tmp_path / "runs/tiny/trials").iterdir()
    model, published = load.open_model(trial), reading.read(folder)[0]
    np.testing.assert_allclose(
        model.params["task"]["dense"]["kernel"],
        published.params["task"]["dense"]["kernel"],
        atol=1e-6,
    )
    huggingface.write(model, tmp_path / "exported")
    assert huggingface.read(tmp_path / "exported").config == published.config
