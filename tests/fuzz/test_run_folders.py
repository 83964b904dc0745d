"""Attacks on what a run has left on the disk: it is read as it was written, or refused.

Damage that changes nothing that is read (a record's padding, say) may pass; damaged numbers, text
or settings never do.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from mobilebert_jax import artifacts
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.data import prepare
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.pipeline import runner
from mobilebert_jax.pipeline.curriculum import Setting
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training import checkpoint
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.checkpoint import Damaged
from mobilebert_jax.training.metric_log import read_rows
from mobilebert_jax.training.state import Layout
from tests import miniature
from tests.fuzz.attack import attack
from tests.fuzz.mutations import damaged

pytestmark = [pytest.mark.fuzz, pytest.mark.usefixtures("quick")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A finished teacher and its prepared text."""
    folder = tmp_path_factory.mktemp("run")
    config = miniature.experiment(folder, stages=("prepare", "teacher"))
    runner.run(config, miniature.console())
    return folder / "runs/tiny", config


def stage(run: Path, name: str) -> Path:
    (found,) = run.glob(f"{name}-*")
    return found


def damaging(
    request: pytest.FixtureRequest,
    folder: Path,
    read: Callable[[], None],
    kept: Callable[[Path], bool] = lambda path: True,
    refusals: tuple[type[Exception], ...] = (InputError,),
) -> None:
    """Attacks `read` by damaging one file of `folder`, which is mended after each attack."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and kept(path))
    whole = {path: path.read_bytes() for path in files}
    cases = st.sampled_from(files).flatmap(
        lambda path: st.tuples(st.just(path), st.none() | damaged([whole[path]]))
    )

    def attempt(case: tuple[Path, bytes | None]) -> None:
        path, content = case
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        try:
            read()
        finally:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(whole[path])

    attack(request, cases, attempt, refusals)


def test_prepared_text(request: pytest.FixtureRequest, run: tuple[Path, Config]) -> None:
    records = stage(run[0], "prepare") / "records"

    def content() -> list[list[np.ndarray]]:
        found = []
        for split in ("train", "held_out"):
            for documents in prepare.open_documents(records, split):
                found += [documents.token_counts, documents.document_numbers]
                found += [array for i in range(len(documents)) for array in documents[i]]
        return found

    whole, digest = content(), prepare.load_tokenizer(records).digest

    def read() -> None:
        for a, b in zip(content(), whole, strict=True):
            np.testing.assert_array_equal(a, b)
        assert prepare.load_tokenizer(records).digest == digest

    damaging(request, records, read)


def test_finished_stages(request: pytest.FixtureRequest, run: tuple[Path, Config]) -> None:
    folder = stage(run[0], "teacher")
    whole = artifacts.manifest(folder)

    def read() -> None:
        found = artifacts.manifest(folder)
        assert found is None or found == whole
        artifacts.check_files(folder)
        read_rows(folder / "metrics.jsonl")

    damaging(request, folder, read, lambda path: "checkpoints" not in path.parts)


def test_checkpoints(
    request: pytest.FixtureRequest, run: tuple[Path, Config], tmp_path: Path
) -> None:
    config = run[1]
    copied = tmp_path / "checkpoints"
    shutil.copytree(stage(run[0], "teacher") / "checkpoints", copied)
    newest = max(copied.iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    for path in copied.iterdir():
        if path != newest:
            shutil.rmtree(path)
    layout = Layout(make_mesh(config.execution.mesh, jax.devices()[:1]))
    records = stage(run[0], "prepare") / "records"
    vocabulary = Vocabulary.of(prepare.load_tokenizer(records))
    setting = Setting(config, layout, prepare.open_documents(records, "train"), vocabulary)
    abstract = state_lib.abstract_params(setting.network(config.teacher.model), layout)
    whole = checkpoint.load_params(copied, abstract)

    def read() -> None:
        found = checkpoint.load_params(copied, abstract)
        jax.tree.map(np.testing.assert_array_equal, found, whole)

    damaging(request, newest, read, refusals=(InputError, Damaged))


def test_metrics(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 0, "loss": 1.5}\n{"step": 1, "loss": "NaN"}\n{"step": 2, "loss": 0.5}\n'

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        for row in read_rows(path):
            assert all(isinstance(value, float) for value in row.values())

    attack(request, damaged([whole]), attempt)
