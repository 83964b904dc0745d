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

from tests.fuzz.attack import SHARES

# The first call of a jitted function compiles it, which no deadline for one example allows for.
hypothesis.settings.register_profile("mobilebert_jax", deadline=None)
hypothesis.settings.load_profile("mobilebert_jax")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The module's experiments in miniature run on one device, and compile each program once."""
    from tests import miniature  # imports jax

    with miniature.one_quick_device(tmp_path_factory.mktemp("compiled")):
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Counts the attacks, which share the time that there is for them."""
    config.stash[SHARES] = max(1, sum("fuzz" in item.keywords for item in items))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how often each reader was attacked, and how often it refused."""
    lines = []
    for report in terminalreporter.stats.get("passed", []):
        for tried, refused in [value for name, value in report.user_properties if name == "fuzz"]:
            name = report.nodeid.split("::")[-1]
            lines.append(f"{tried:>8,} attacks, {refused:>8,} refused: {name}")
    if lines:
        terminalreporter.section("fuzz")
        terminalreporter.write_line("\n".join(sorted(lines)))
