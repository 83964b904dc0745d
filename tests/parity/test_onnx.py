"""ONNX files compute what our networks do, in onnxruntime, at any batch and length."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop import onnx as onnx_format
from mobilebert_jax.interop.model import Kind
from tests.interop import exchanged

pytestmark = pytest.mark.parity

CONFIGS = exchanged.CONFIGS | exchanged.OTHERS
KIND_OF = dict(zip(CONFIGS, [*exchanged.LABELS, *exchanged.LABELS], strict=False))
"""Every form of the network, and every kind at least once."""


@pytest.mark.parametrize("name", CONFIGS)
def test_every_network_computes_the_same(name: str, tmp_path: Path) -> None:
    kind: Kind = KIND_OF[name]
    model = exchanged.make(CONFIGS[name], kind)._replace(tokenizer=None)
    verified = onnx_format.export(model, tmp_path / "network.onnx")
    assert tuple(sorted(verified.differences)) == forward.output_names(kind)
    assert max(difference.max_rel for difference in verified.differences.values()) < 1e-5
    run = onnx_format.runner(tmp_path / "network.onnx")
    inputs = verification.examples(model, 5).rows(1, 3)
    found, expected = run(inputs), verification.ours(model, inputs)
    for output, array in expected.items():
        np.testing.assert_allclose(found[output], array, atol=1e-4)


def test_a_network_of_8_bits_hides_padding_in_its_own_way(tmp_path: Path) -> None:
    model = exchanged.make(CONFIGS["relu6"], "bare")._replace(tokenizer=None)
    onnx_format.export(model, tmp_path / "network.onnx", mask="clipped")
    inputs = verification.examples(model, 8)
    found = onnx_format.runner(tmp_path / "network.onnx")(inputs)["sequence_output"]
    plain = verification.ours(model, inputs)["sequence_output"]
    assert np.abs(found - plain).max() > 1e-4


def test_files_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = exchanged.make(CONFIGS["relu6"], "bare")._replace(tokenizer=None)
    wrong = model._replace(config=dataclasses.replace(model.config, hidden_act="relu"))
    scaled = wrong.params | {"blocks": {**wrong.params["blocks"]}}
    first = scaled["blocks"]["feedforward_0_in"]
    scaled["blocks"]["feedforward_0_in"] = first | {"bias": first["bias"] + 7.0}
    wrong = wrong._replace(params=scaled)
    right = wrong._replace(config=model.config)
    build = onnx_format._model
    monkeypatch.setattr(onnx_format, "_model", lambda onnx, _, mask: build(onnx, wrong, mask))
    with pytest.raises(InputError, match="differs from ours by"):
        onnx_format.export(right, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []
