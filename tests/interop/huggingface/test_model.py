"""Hugging Face folders: parameters travel bit for bit, and wrong folders are refused by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.interop import parameter_names, reading
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.huggingface import tokenizer as huggingface_tokenizer
from mobilebert_jax.interop.huggingface.config import POOLED
from mobilebert_jax.interop.model import Kind, Model
from tests.interop import exchanged


def as_stored(model: Model) -> Model:
    """Returns what must come back of a network."""
    config, params = model.config, dict(model.params)
    body = parameter_names.huggingface_body(config)
    word = params["embeddings"]["word"].copy()
    if config.trigram_input and config.trigram_masks_padding and "masked_lm" not in params:
        word[0] = 0.0
    params["embeddings"] = params["embeddings"] | {"word": word}
    if model.kind not in POOLED and body != "squeezebert":
        params.pop("pooler", None)
        config = dataclasses.replace(config, pooler=False)
    config = dataclasses.replace(config, trigram_masks_padding=False)
    return model._replace(config=config, params=params)


def assert_equal(found: Model, model: Model) -> None:
    assert (found.config, found.kind, found.labels) == (model.config, model.kind, model.labels)
    np.testing.assert_equal(found.params, model.params)
    assert found.tokenizer is not None and model.tokenizer is not None
    assert found.tokenizer.digest == model.tokenizer.digest


TRIPS = [
    (name, kind)
    for name in exchanged.CONFIGS
    for kind in exchanged.LABELS
    if name in ("masks_padding", "pooler", "bert", "squeezebert")
    or kind in ("pretraining", "multiple_choice")
    if exchanged.is_expressed(name, kind)
]


@pytest.mark.parametrize(("name", "kind"), TRIPS)
def test_every_network_comes_back(name: str, kind: Kind, tmp_path: Path) -> None:
    model = exchanged.make(exchanged.CONFIGS[name], kind)
    huggingface.write(model, tmp_path / "written")
    assert sorted(path.name for path in (tmp_path / "written").iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert_equal(huggingface.read(tmp_path / "written"), as_stored(model))


def test_numbers_and_unnamed_classes_come_back(tmp_path: Path) -> None:
    config = exchanged.CONFIGS["released"]
    model = exchanged.make(config, "sequence_classification", ("one",))._replace(labels=())
    huggingface.write(model, tmp_path / "number")
    assert_equal(huggingface.read(tmp_path / "number"), model)
    change_json(tmp_path / "number" / "config.json", id2label={"0": "toxicity"})
    assert_equal(huggingface.read(tmp_path / "number"), model)
    model = exchanged.make(config, "token_classification")._replace(labels=())
    huggingface.write(model, tmp_path / "unnamed")
    assert_equal(huggingface.read(tmp_path / "unnamed"), model)


@pytest.mark.parametrize("name", exchanged.OTHERS)
def test_what_cannot_be_expressed_is_refused(name: str, tmp_path: Path) -> None:
    config = exchanged.OTHERS[name]
    (reason,) = huggingface.problems(config)
    with pytest.raises(InputError, match=r"query_key='block_input'.*own format") as caught:
        huggingface.write(exchanged.make(config, "pretraining"), tmp_path / "written")
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", exchanged.LABELS)
def test_a_bert_without_pooler_is_refused_where_one_is_read(kind: Kind, tmp_path: Path) -> None:
    config = dataclasses.replace(exchanged.CONFIGS["bert"], pooler=False)
    model = exchanged.make(config, kind)
    assert huggingface.problems(config) == []
    if kind not in POOLED:
        huggingface.write(model, tmp_path / "written")
        assert_equal(huggingface.read(tmp_path / "written"), as_stored(model))
        return
    with pytest.raises(InputError, match=r"pooler=False with the kind .*always passes"):
        huggingface.write(model, tmp_path / "written")


def test_a_squeezebert_leaves_without_its_head_of_next_sentence(tmp_path: Path) -> None:
    config = exchanged.CONFIGS["squeezebert"]
    model = exchanged.make(config, "pretraining")
    notes = huggingface.write(model, tmp_path / "written")
    assert "head of next sentence is left out" in notes[0]
    params = {name: part for name, part in model.params.items() if name != "next_sentence"}
    kept = model._replace(kind="masked_lm", params=params)
    assert_equal(huggingface.read(tmp_path / "written"), as_stored(kept))
    with pytest.raises(InputError, match=r"'next_sentence': .*SqueezeBERT has no such head"):
        huggingface.write(exchanged.make(config, "next_sentence"), tmp_path / "other")


def test_a_squeezebert_without_pooler_gets_one_of_zeros_where_none_reads_it(tmp_path: Path) -> None:
    config = dataclasses.replace(exchanged.CONFIGS["squeezebert"], pooler=False)
    model = exchanged.make(config, "question_answering")
    notes = huggingface.write(model, tmp_path / "written")
    assert "holds a pooler that it does not read; its weights are 0" in notes[0]
    tensors = safetensors_files.read(tmp_path / "written" / "model.safetensors")
    assert not tensors["transformer.pooler.dense.weight"].any()
    change_tensors(
        tmp_path / "written",
        lambda tensors: {n: array for n, array in tensors.items() if "pooler" not in n},
    )
    assert_equal(huggingface.read(tmp_path / "written"), as_stored(model))
    with pytest.raises(InputError, match=r"pooler=False .*SqueezeBert always passes"):
        huggingface.write(exchanged.make(config, "sequence_classification"), tmp_path / "other")


def test_groups_are_refused_where_the_network_is_no_squeezebert(tmp_path: Path) -> None:
    for name in ("released", "without_bottlenecks"):
        config = dataclasses.replace(exchanged.CONFIGS[name], intermediate_groups=2)
        with pytest.raises(InputError, match=r"groups in dense layers: only .*SqueezeBERT"):
            huggingface.write(exchanged.make(config, "bare"), tmp_path / "written")


def test_notes_say_what_differs() -> None:
    def notes(name: str, kind: Kind) -> str:
        return " ".join(huggingface.notes(exchanged.make(exchanged.CONFIGS[name], kind)))

    assert notes("released", "pretraining") == notes("bert", "bare") == ""
    assert notes("squeezebert", "question_answering") == notes("squeezebert", "bare") == ""
    assert "MobileBertForQuestionAnswering has none" in notes("pooler", "question_answering")
    assert "row of padding is 0" in notes("masks_padding", "bare")
    assert "reads the padding after it" in notes("masks_padding", "masked_lm")
    assert "1e-5" in notes("layer_norm", "bare")
    without = exchanged.make(exchanged.CONFIGS["masks_padding"], "bare")._replace(tokenizer=None)
    assert "reads the padding after it" in " ".join(huggingface.notes(without))


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("sequence_classification", ("a", "b"), "3 outputs need as many different labels"),
        ("token_classification", ("a", "b", "c", "a"), "4 outputs need as many different labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    kind: Kind, labels: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    model = exchanged.make(exchanged.CONFIGS["released"], kind)._replace(labels=labels)
    with pytest.raises(InputError, match=message):
        huggingface.write(model, tmp_path / "written")


def test_three_outputs_of_questions_are_refused(tmp_path: Path) -> None:
    wide = exchanged.make(exchanged.CONFIGS["released"], "question_answering", ("a", "b", "c"))
    with pytest.raises(InputError, match="has 2 outputs, not 3"):
        huggingface.write(wide, tmp_path / "written")


def written(folder: Path, name: str = "released", kind: Kind = "pretraining") -> Model:
    model = exchanged.make(exchanged.CONFIGS[name], kind)
    huggingface.write(model, folder)
    return as_stored(model)


def change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: v for name, v in content.items() if v != "absent"}))


def change_tensors(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors_files.read(path)
    safetensors_files.write(path, change(tensors) or tensors, {"format": "pt"})


@pytest.mark.parametrize("name", ["released", "bert"])
def test_older_spellings_and_buffers_are_read(name: str, tmp_path: Path) -> None:
    model = written(tmp_path / "old", name)
    body = "bert" if name == "bert" else "mobilebert"

    def age(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        aged = {
            name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): array
            for name, array in tensors.items()
        }
        aged[f"{body}.embeddings.position_ids"] = np.arange(16)[None]
        aged["cls.predictions.decoder.weight"] = tensors[
            f"{body}.embeddings.word_embeddings.weight"
        ]
        aged["cls.predictions.decoder.bias"] = aged.pop("cls.predictions.bias")
        return aged

    change_tensors(tmp_path / "old", age)
    assert_equal(huggingface.read(tmp_path / "old"), model)
    # The first BERTs are called masked LMs and hold everything of pretraining.
    head = "BertForMaskedLM" if name == "bert" else "MobileBertForMaskedLM"
    change_json(tmp_path / "old" / "config.json", architectures=[head])
    assert_equal(huggingface.read(tmp_path / "old"), model)


@pytest.mark.parametrize(
    "kind", ["bare", "masked_lm", "next_sentence", "pretraining", "question_answering"]
)
def test_the_head_tells_the_kind_where_the_config_does_not(kind: Kind, tmp_path: Path) -> None:
    model = written(tmp_path / "written", kind=kind)
    change_json(tmp_path / "written" / "config.json", architectures="absent")
    assert_equal(huggingface.read(tmp_path / "written"), model)


def test_a_classifier_without_architecture_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "written", kind="token_classification")
    change_json(tmp_path / "written" / "config.json", architectures=None)
    with pytest.raises(InputError, match=r"MobileBertForTokenClassification.*architectures"):
        huggingface.read(tmp_path / "written")


def test_a_bare_network_is_read_with_prefix_and_without_pooler(tmp_path: Path) -> None:
    model = written(tmp_path / "written", "pooler", "bare")

    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {f"mobilebert.{n}": array for n, array in tensors.items() if "pooler" not in n}

    change_tensors(tmp_path / "written", change)
    found = huggingface.read(tmp_path / "written")
    assert found.config == dataclasses.replace(model.config, pooler=False)
    assert "pooler" not in found.params


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model = written(tmp_path / "written")
    change_tensors(
        tmp_path / "written",
        lambda t: {name: array.astype(np.float16) for name, array in t.items()},
    )
    word = huggingface.read(tmp_path / "written").params["embeddings"]["word"]
    assert word.dtype == np.float32
    expected = model.params["embeddings"]["word"].astype(np.float16)
    np.testing.assert_array_equal(word, expected.astype(np.float32))


WORD = "mobilebert.embeddings.word_embeddings.weight"
OUTPUT = "mobilebert.encoder.layer.1.ffn.0.output.dense"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {n: array for n, array in t.items() if n != f"{OUTPUT}.weight"},
            rf"1 of 95 tensors are missing: {OUTPUT}.weight \(nearest there: .*dense.weight",
        ),
        (lambda t: t.clear(), "95 of 95 tensors are missing: .*, .*, .*, .*it holds none"),
        (
            lambda t: t.update({f"{OUTPUT}.wait": t[WORD]}),
            rf"tensor {OUTPUT}.wait is unknown in MobileBertForPreTraining; .*{OUTPUT}.weight",
        ),
        (
            lambda t: t.update({WORD: t[WORD][:-1]}),
            rf"tensor {WORD} has the shape \[26, 8\]; .* must be \[27, 8\]",
        ),
        (
            lambda t: t.update({WORD: t[WORD].astype(np.int8)}),
            f"tensor {WORD} has the type int8; allowed are float32",
        ),
        (
            lambda t: t.update({WORD: np.full_like(t[WORD], np.nan)}),
            f"tensor {WORD} holds numbers that are infinite",
        ),
        (
            lambda t: t.update({"cls.predictions.decoder.weight": t[WORD] + 1}),
            f"cls.predictions.decoder.weight differs from {WORD}",
        ),
    ],
)
def test_wrong_tensors_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    written(tmp_path / "written")
    change_tensors(tmp_path / "written", change)
    with pytest.raises(InputError, match=rf"model\.safetensors: .*{message}"):
        huggingface.read(tmp_path / "written")


def test_more_labels_than_outputs_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "written", kind="sequence_classification")
    path = tmp_path / "written" / "config.json"
    change_json(path, id2label={"0": "a", "1": "b"})
    with pytest.raises(InputError, match=r"classifier.weight has the shape \[3, 16\].*\[2, 16\]"):
        huggingface.read(tmp_path / "written")


def test_missing_files_and_a_teacher_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        huggingface.read(tmp_path / "nothing")
    written(tmp_path / "written")
    change_json(tmp_path / "written" / "config.json", key_query_shared_bottleneck=False)
    with pytest.raises(InputError, match=r"config\.json: query_key='block_input'"):
        huggingface.read(tmp_path / "written")
    (tmp_path / "written" / "config.json").unlink()
    with pytest.raises(InputError, match=r"there is no file .*config\.json"):
        huggingface.read(tmp_path / "written")


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(exchanged.CONFIGS["released"], vocab_size=26)
    with pytest.raises(InputError, match=r"tokenizer has 27 pieces .*26 rows"):
        huggingface.write(exchanged.make(config, "bare"), tmp_path / "written")
    written(tmp_path / "larger")
    with (tmp_path / "larger" / "vocab.txt").open("a") as file:
        file.write("another\n")
    with pytest.raises(InputError, match=r"tokenizer has 28 pieces .*27 rows"):
        huggingface.read(tmp_path / "larger")


# Tokenizers


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_wordpiece_is_read_from_either_file(lowercase: bool, tmp_path: Path) -> None:
    ours = exchanged.wordpiece(lowercase)
    notes = huggingface_tokenizer.write(ours, tmp_path, "bert", 16)
    assert len(notes) == 1 and "Words of 101 to 200 characters" in notes[0]
    (tmp_path / "tokenizer_config.json").unlink()
    for file in ("vocab.txt", "tokenizer.json"):
        found = huggingface_tokenizer.read(tmp_path)
        assert found is not None and found.digest == ours.digest
        (tmp_path / file).unlink()
    assert huggingface_tokenizer.read(tmp_path) is None


def test_the_library_file_splits_as_we_do_and_knows_special_tokens(tmp_path: Path) -> None:
    ours = exchanged.wordpiece()
    huggingface_tokenizer.write(ours, tmp_path, "mobilebert", 16)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("The film was wonderfully unbelievable!", "TÔKYÔ 東京", "", "x" * 150 + " the"):
        assert library.encode(text).ids == [ours.cls, *ours.encode([text])[0], ours.sep]
    assert library.encode("not [MASK]", add_special_tokens=False).ids[-1] == ours.mask
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert about["tokenizer_class"] == "MobileBertTokenizer"
    assert (about["model_max_length"], about["do_lower_case"]) == (16, True)


@pytest.mark.parametrize("vocab", [{"[PAD]": 1}, {"[PAD]": "0"}, ["[PAD]"], None])
def test_a_damaged_vocabulary_is_refused(vocab: Any, tmp_path: Path) -> None:
    content = {"model": {"type": "WordPiece", "vocab": vocab}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tokenizer\.json: "):
        huggingface_tokenizer.read(tmp_path)


LINES = ["the film was good", "the film was not bad", "東京の映画", "فیلم خوب بود", "\ufb01lm  ok"]


@pytest.mark.parametrize("kind", ["sentencepiece_unigram", "sentencepiece_bpe"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_sentencepiece_models_come_back(kind: Any, lowercase: bool, tmp_path: Path) -> None:
    choice = schema.Tokenizer(kind=kind, vocab_size=90, lowercase=lowercase)
    ours = tokenizer_lib.train(LINES * 20, choice, tmp_path / "trained")
    (tmp_path / "written").mkdir()
    huggingface_tokenizer.write(ours, tmp_path / "written", "mobilebert", 16)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "written" / "tokenizer.json"))
    for text, ids in zip(LINES, ours.encode(LINES), strict=True):
        assert library.encode(text).ids == [ours.cls, *ids, ours.sep]
    for present in (True, False):
        found = huggingface_tokenizer.read(tmp_path / "written")
        assert found is not None and found.digest == ours.digest
        if present:
            (tmp_path / "written" / "tokenizer_config.json").unlink()
    for changes, message in (
        (
            {"do_lower_case": not lowercase},
            f"do_lower_case={not lowercase}, but sentencepiece.model",
        ),
        ({"tokenizer_class": "AlbertTokenizer"}, "'AlbertTokenizer' has rules of its own"),
    ):
        if "tokenizer_class" in changes:
            (tmp_path / "written" / "tokenizer.json").unlink()
        (tmp_path / "written" / "tokenizer_config.json").write_text(json.dumps(changes))
        with pytest.raises(InputError, match=message):
            huggingface_tokenizer.read(tmp_path / "written")
    (tmp_path / "written" / "tokenizer_config.json").unlink()
    path = tmp_path / "written" / "sentencepiece.model"
    content = path.read_bytes()
    # What the settings of a run say of a model from elsewhere changes nothing that it does.
    called = tokenizer_lib.SentencePiece(content, kind, not lowercase, "a test")
    (tmp_path / "called").mkdir()
    huggingface_tokenizer.write(called, tmp_path / "called", "mobilebert", 16)
    found = huggingface_tokenizer.read(tmp_path / "called")
    assert found is not None and found.lowercase == lowercase
    for length in (1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"sentencepiece\.model: not a"):
            huggingface_tokenizer.read(tmp_path / "written")


@pytest.mark.parametrize("key", ["num_labels", "_num_labels", None])
def test_the_number_of_outputs_is_that_of_the_file(tmp_path: Path, key: str | None) -> None:
    model = exchanged.make(exchanged.CONFIGS["released"], "sequence_classification")
    huggingface.write(model, tmp_path / "written")
    path = tmp_path / "written" / "config.json"
    content = json.loads(path.read_text())
    for name in ("id2label", "label2id", "num_labels"):
        content.pop(name, None)
    if key is not None:
        content[key] = 3
    path.write_text(json.dumps(content))
    found = huggingface.read(tmp_path / "written")
    np.testing.assert_array_equal(found.params["task"]["dense"]["bias"].shape, (3,))


@pytest.mark.parametrize("name", ["released", "bert"])
def test_a_config_of_before_model_types_is_read(tmp_path: Path, name: str) -> None:
    model = exchanged.make(exchanged.CONFIGS[name], "bare")
    huggingface.write(model, tmp_path / "written")
    path = tmp_path / "written" / "config.json"
    content = json.loads(path.read_text())
    del content["model_type"], content["architectures"]
    path.write_text(json.dumps(content))
    assert_equal(huggingface.read(tmp_path / "written"), as_stored(model))


def test_weights_for_other_libraries_are_named_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"tf_model\.h5 holds the weights for Keras.*from_tf=True"):
        huggingface.read(tmp_path)


def test_the_name_of_a_model_on_the_hub_is_told_to_be_downloaded() -> None:
    name = "csarron/mobilebert-uncased-squad-v2"
    with pytest.raises(InputError, match=f"`hf download {name} --local-dir mobilebert-uncased"):
        reading.read(Path(name))
