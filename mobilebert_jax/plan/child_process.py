"""Runs the compiler in a process of its own, so that a crash of it does not end the plan."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mobilebert_jax.config.schema import Config
from mobilebert_jax.data import workers
from mobilebert_jax.plan import devices
from mobilebert_jax.plan.compiled import Compiled, compile_program
from mobilebert_jax.plan.programs import program
from mobilebert_jax.plan.topology import Topology
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training.state import Layout


class Compiler:
    """A compiler for one topology; started when it is first needed, and anew after a crash."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._pool: ProcessPoolExecutor | None = None

    def compile(self, config: Config, stage: str, layer: int | None) -> Compiled | None:
        """Returns what the step of `stage` (and `layer`) needs; None where the compiler crashed."""
        return self._call(compile_step, config, self._topology, stage, layer)

    def _call(self, function: Any, *arguments: Any) -> Any:
        if self._pool is None:
            # A fork of a process in which JAX has started threads may hang.
            self._pool = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), initializer=workers.end_with_parent
            )
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self._pool = None
            return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def compiler(topology: Topology) -> Iterator[Compiler]:
    """Yields a compiler for `topology`, and ends its process afterwards."""
    made = Compiler(topology)
    try:
        yield made
    finally:
        made.close()


def compile_step(config: Config, topology: Topology, stage: str, layer: int | None) -> Compiled:
    """Compiles one step for the devices of `topology`, in this process."""
    devices.stay_off_hardware()
    mesh = make_mesh(config.execution.mesh, devices.compile_only(topology))
    layout = Layout(mesh, config.execution.fsdp_shard)
    return compile_program(program(config, layout, stage, layer), config, layout)
