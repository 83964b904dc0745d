"""StableHLO files run without this project, at any batch and length."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import stablehlo, verification
from mobilebert_jax.interop.forward import Mask
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
@pytest.mark.parametrize("mask", ["additive", "clipped"])
def test_a_file_runs_at_any_batch_and_length(mask: Mask, tmp_path: Path) -> None:
    path = tmp_path / "network.stablehlo"
    verified = stablehlo.export(MODEL, path, mask=mask)
    assert verified.path == path
    assert verified.bytes == path.stat().st_size
    assert sorted(verified.differences) == ["end_logits", "start_logits"]
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == stablehlo.PLATFORMS
    for length in (3, 16):
        inputs = verification.examples(MODEL._replace(tokenizer=None), length).rows(0, 2)
        found = exported.call(*map(jnp.asarray, inputs))
        expected = verification.ours(MODEL, inputs, mask=mask)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)
