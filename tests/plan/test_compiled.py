"""What a compiler says when the memory of a device does not suffice."""

import pytest

from mobilebert_jax.plan.compiled import too_large

HELD = {"parameters": 2**30, "moments": 2**31, "teacher": 0.0, "batch": 0.0}


def test_a_refusal_states_what_would_have_been_needed():
    found = too_large(
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 24.50G of 15.75G hbm. Exceeded hbm capacity by 8.75G.",
        HELD,
    )
    assert found is not None
    assert not found.fits
    assert found.memory.peak == pytest.approx(24.5 * 2**30)
    assert found.memory.limit == pytest.approx(15.75 * 2**30)


def test_a_refusal_may_count_temporaries_alone():
    found = too_large(
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (1.17T) exceeds available HBM (95.74G).",
        HELD,
    )
    assert found is not None
    assert found.memory.temporaries == pytest.approx(1.17 * 2**40)
    assert found.memory.peak == found.memory.temporaries + 3 * 2**30


@pytest.mark.parametrize("message", ["INTERNAL: Used 1G of 2G hbm", "RESOURCE_EXHAUSTED: vmem"])
def test_any_other_error_is_not_taken_for_a_lack_of_memory(message):
    assert too_large(message, HELD) is None
