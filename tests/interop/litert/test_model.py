"""Full-integer files of any batch are calibrated."""

from pathlib import Path

import pytest

from mobilebert_jax.interop import verification
from mobilebert_jax.interop.litert import model as litert
from tests.interop import exchanged


@pytest.mark.parity
def test_full_integers_are_calibrated_at_the_batch_of_the_file(tmp_path: Path) -> None:
    model = exchanged.make(exchanged.CONFIGS["tiny"], "sequence_classification")
    examples = verification.examples(model, 8).rows(0, 4)
    path = tmp_path / "network.tflite"
    verified = litert.export(model, path, length=8, batch=3, mode="int8", calibration=examples)
    assert verified.bytes == path.stat().st_size
    assert verified.differences["logits"].max_rel < 0.5
