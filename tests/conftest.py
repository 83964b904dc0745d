"""What every test shares: eight simulated CPU devices, and property tests without a time limit."""

import os
from collections.abc import Iterator

# Read when jax makes its backend; this file is imported before any test module imports jax.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

import hypothesis
import pytest

# The first call of a jitted function compiles it, which no deadline for one example allows for.
hypothesis.settings.register_profile("mobilebert_jax", deadline=None)
hypothesis.settings.load_profile("mobilebert_jax")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The module's experiments in miniature run on one device, and compile each program once."""
    from tests import miniature  # imports jax

    with miniature.one_quick_device(tmp_path_factory.mktemp("compiled")):
        yield
