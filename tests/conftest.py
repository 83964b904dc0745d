"""What every test shares: eight simulated CPU devices, and property tests without a time limit."""

import os

# Read when jax makes its backend; this file is imported before any test module imports jax.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

import hypothesis

# The first call of a jitted function compiles it, which no deadline for one example allows for.
hypothesis.settings.register_profile("mobilebert_jax", deadline=None)
hypothesis.settings.load_profile("mobilebert_jax")
