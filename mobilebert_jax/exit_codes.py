"""Ways a run ends other than by finishing, each with its exit code.

0 done; 2 mistake in configuration or input (`config.schema.InputError`), or storage that takes no
more; 3 numerics; 42 saved and preempted; 130 interrupted by Ctrl-C where there was no step to
save; 134 another process was lost, or nothing moved any more.
This file must not import jax: the command line reads it before it knows that there is work.
"""

INPUT_ERROR_CODE = 2
NON_FINITE_CODE = 3
PREEMPTED_CODE = 42
INTERRUPTED_CODE = 130
PEER_LOST_CODE = 134


class NonFinite(Exception):
    """Too many steps, or a parameter, were not finite."""


class Preempted(Exception):
    """The process was asked to stop, and its state is saved."""


class PeerLost(Exception):
    """Another process did not come to where it was waited for within the time limit."""
