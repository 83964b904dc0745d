"""Which errors say that another process was lost; how processes agree is tested with several."""

import jax
import pytest

from mobilebert_jax.distributed import processes

LOST = (
    "UNKNOWN: Gloo context initialization failed: [external/gloo/gloo/transport/tcp/pair.h:311] "
    "Connect timeout [none]"
)


@pytest.mark.parametrize(
    ("count", "message", "lost"),
    [
        (2, LOST, True),
        (2, "INTERNAL: gloo all-reduce failed: Connection closed by peer", True),
        (2, "RESOURCE_EXHAUSTED: Out of memory allocating 1024 bytes", False),
        (1, LOST, False),
    ],
)
def test_errors_of_the_connection_mean_a_lost_process(
    count: int, message: str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: count)
    assert processes.was_lost(jax.errors.JaxRuntimeError(message)) == lost
