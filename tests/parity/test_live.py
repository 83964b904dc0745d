"""Our networks equal Hugging Face's PyTorch networks run side by side on the same weights."""

import numpy as np
import pytest

from mobilebert_jax.interop import parameter_names
from tests.parity import cases

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", [*cases.NARROW, *cases.WIDE])
def test_outputs_loss_and_every_gradient_equal_pytorch(name: str) -> None:
    from tests.parity import torch_reference

    config = (cases.NARROW | cases.WIDE)[name]
    params, batch = cases.random_params(config), cases.random_batch(config)
    ours = cases.our_results(config, params, batch)
    theirs = torch_reference.their_results(config, params, batch)
    found = cases.differences(ours, theirs)
    assert len(found) == 2 * config.num_hidden_layers + 4 + len(
        parameter_names.table(config, "pretraining")
    )
    wrong = {key: value for key, value in found.items() if not value < cases.TOLERANCE}
    assert not wrong, f"largest {max(found.values()):.1e}: {wrong}"


@pytest.mark.parametrize("name", [*cases.NARROW, *cases.WIDE])
def test_the_table_names_every_tensor_of_the_pytorch_network(name: str) -> None:
    from tests.parity import torch_reference

    config = (cases.NARROW | cases.WIDE)[name]
    theirs = {k: tuple(v.shape) for k, v in torch_reference.build(config).state_dict().items()}
    ours = torch_reference.state_dict(config, cases.random_params(config))
    assert {k: np.shape(v) for k, v in ours.items()} == theirs
