"""StableHLO files run without this project, at any batch and length that was left open."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import forward, stablehlo, verification
from tests.interop import exchanged

MODEL = exchanged.make(exchanged.CONFIGS["masks_padding"], "question_answering")


def test_a_missing_package_is_named_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flatbuffers", None)
    with pytest.raises(InputError, match=r"package flatbuffers .*requirements-export\.txt"):
        stablehlo.export(MODEL, tmp_path / "network.stablehlo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parity
def test_a_file_runs_at_any_batch_and_length(tmp_path: Path) -> None:
    path = tmp_path / "network.stablehlo"
    verified = stablehlo.export(MODEL, path)
    assert verified.path == path
    assert verified.bytes == path.stat().st_size
    assert sorted(verified.differences) == ["end_logits", "start_logits"]
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == stablehlo.PLATFORMS
    for length in (3, 16):
        inputs = verification.examples(MODEL._replace(tokenizer=None), length).rows(0, 2)
        found = exported.call(*map(jnp.asarray, inputs))
        expected = verification.ours(MODEL, inputs)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)


@pytest.mark.parity
def test_a_file_of_one_shape(tmp_path: Path) -> None:
    path = tmp_path / "network.stablehlo"
    stablehlo.export(MODEL, path, length=8, batch=2, platforms=("cpu",), mask="clipped")
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert [aval.shape for aval in exported.in_avals] == [(2, 8)] * len(forward.INPUTS)
    assert exported.platforms == ("cpu",)


@pytest.mark.parity
def test_a_file_of_one_length_runs_at_any_batch(tmp_path: Path) -> None:
    path = tmp_path / "network.stablehlo"
    stablehlo.export(MODEL, path, length=8, platforms=("cpu",))
    inputs = verification.examples(MODEL, 8).rows(0, 1)
    found = stablehlo.runner(path)(inputs)
    np.testing.assert_allclose(
        found["start_logits"], verification.ours(MODEL, inputs)["start_logits"], atol=1e-5
    )


@pytest.mark.parity
@pytest.mark.parametrize(
    ("settings", "message"),
    [({"length": 17}, "positions for 1 to 16"), ({"batch": 0}, "batch 0 must be at least 1")],
)
def test_impossible_shapes_are_refused(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stablehlo.export(MODEL, tmp_path / "network.stablehlo", **settings)
