"""The compiler's estimate, summed as a step runs the instructions."""

from mobilebert_jax.plan import cycles

TEXT = """\
HloModule jit_step

%inner (p: f32[8]) -> f32[8] {
  ROOT %m = f32[8]{0} multiply(%p, %p), backend_config={"window_config":{"estimated_cycles":"999"}}
}

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %f = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner, \
backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %f)
}

%condition (s.1: (s32[], f32[8])) -> pred[] {
  %n = s32[] constant(24)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]{0}) while(%init), condition=%condition, body=%body
  ROOT %c = f32[8]{0} copy(%y), backend_config={"window_config":{"estimated_cycles":"5"}}
}
"""


def test_loops_count_their_rounds_and_fusions_their_own_estimate():
    assert cycles.estimate(TEXT) == 24 * 10 + 5


def test_a_compiler_that_estimates_nothing_is_not_taken_for_a_fast_program():
    assert cycles.estimate("ENTRY %main (x: f32[8]) -> f32[8] {\n}") is None
