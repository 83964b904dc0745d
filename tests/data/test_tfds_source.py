from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, tfds_source

_TEXTS = [f"First line of {i}.\n\nSecond line of {i}.\n" for i in range(20)]


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.3")
    SPLIT = "train"
    name = "prose_for_tests"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"text": tfds.features.Text(), "label": tfds.features.Scalar(np.int64)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {self.SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, object]]]:
        for i, text in enumerate(_TEXTS):
            yield i, {"text": text, "label": i}


class _OtherSplit(_Builder, skip_registration=True):
    SPLIT = "test"
    name = "split_for_tests"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where TFDS looks for datasets, as TFDS_DATA_DIR would name one."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    return tmp_path


def _prepare(builder: type[_Builder], folder: Path) -> None:
    builder(data_dir=folder, file_format="array_record").download_and_prepare()


def test_every_record_is_read_once(folder: Path) -> None:
    _prepare(_Builder, folder)
    (source,) = corpus.parse_sources("tfds:prose_for_tests")
    shards = corpus.plan_shards(source, 300)
    assert len(shards) > 2
    documents = [d for shard in shards for d in corpus.read(shard)]
    expected = [tuple(text.strip().split("\n\n")) for text in _TEXTS]
    assert sorted(d.lines for d in documents) == sorted(expected)
    assert documents[0].origin == "prose_for_tests/1.2.3:0"
    assert corpus.fingerprint(source)["tfds"] == "prose_for_tests/1.2.3"


def test_a_feature_that_is_no_text_is_refused(folder: Path) -> None:
    _prepare(_Builder, folder)
    for field, message in (
        ("lable", "no feature 'lable'; the nearest is 'label'"),
        ("label", "int"),
    ):
        (source,) = corpus.parse_sources(f"tfds:prose_for_tests#{field}")
        with pytest.raises(InputError, match=message):
            list(corpus.read(corpus.plan_shards(source, 1 << 20)[0]))


def test_a_dataset_without_a_training_split_is_refused(folder: Path) -> None:
    _prepare(_OtherSplit, folder)
    with pytest.raises(InputError, match="no split 'train'; its splits are test"):
        corpus.fingerprint(corpus.Source(1.0, "tfds", "split_for_tests"))


def test_an_unknown_dataset_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="tfds:no_such_data_set cannot be opened"):
        corpus.fingerprint(corpus.Source(1.0, "tfds", "no_such_data_set"))
    with pytest.raises(InputError, match="huggingface:a/b is no name"):
        corpus.fingerprint(corpus.Source(1.0, "tfds", "huggingface:a/b"))


@pytest.mark.parametrize("name", ["lm1b", "ag_news_subset"])
def test_without_network_an_unprepared_dataset_fails_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A port of this machine on which nothing listens.
    monkeypatch.setattr(tfds_source, "_PROBE_URL", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match=rf"{name} is not prepared .*tfds build {name}"):
        corpus.fingerprint(corpus.Source(1.0, "tfds", name))
