"""Makes plans for one machine: compiled where there is a compiler for it, otherwise estimated."""

import dataclasses

import rich.console

from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.schema import Config
from mobilebert_jax.plan import analytic, devices, job
from mobilebert_jax.plan.analytic import Cut
from mobilebert_jax.plan.child_process import Compiler
from mobilebert_jax.plan.compiled import Compiled
from mobilebert_jax.plan.job import Job
from mobilebert_jax.plan.topology import Topology
from mobilebert_jax.sharding import mesh as mesh_lib
from mobilebert_jax.sharding.gpu_features import check_fused_attention


class Planner:
    """Makes plans for one machine, and compiles no step twice."""

    def __init__(
        self, hardware: Topology, compiler: Compiler, layers: str, console: rich.console.Console
    ) -> None:
        self.hardware, self.layers = hardware, layers
        self._compiler, self._console = compiler, console
        self._devices = devices.compile_only(hardware) if hardware.libtpu else []
        self._compiled: dict[tuple[Execution, str, int | None], Compiled] = {}

    @property
    def compiles(self) -> bool:
        """Whether there is a compiler for this machine."""
        return bool(self._devices)

    def make(self, config: Config) -> Job:
        """Returns the plan: from compiled steps where there is a compiler, else estimated."""
        return self._make(config, self.layers) if self._devices else self.estimate(config)

    def make_ends(self, config: Config) -> Job:
        """Returns the plan from the first and the last layer alone of a progressive transfer."""
        ends = f"0,{config.student.num_hidden_layers - 1}"
        return self._make(config, ends) if self._devices else self.estimate(config)

    def estimate(self, config: Config) -> Job:
        """Returns the plan without compiling anything, every layer counted."""
        job.chosen_layers(self.layers, config)  # a mistake in it is one here too
        cut = Cut(*mesh_lib.axis_sizes(config.execution.mesh, self.hardware.devices))

        def measure(config: Config, stage: str, layer: int | None) -> Compiled:
            return analytic.estimate(config, cut, stage, layer)

        return job.make(config, self.hardware, cut, "all", measure)

    def _make(self, config: Config, layers: str) -> Job:
        mesh = mesh_lib.make_mesh(config.execution.mesh, self._devices)
        check_fused_attention(config.execution, mesh, (config.teacher.model, config.student))
        cut = Cut(*(mesh.shape[axis] for axis in mesh_lib.AXES))

        def measure(config: Config, stage: str, layer: int | None) -> Compiled:
            key = (config.execution, stage, layer)
            if key not in self._compiled:
                self._compiled[key] = self._compile(config, cut, stage, layer)
            return self._compiled[key]

        return job.make(config, self.hardware, cut, layers, measure)

    def _compile(self, config: Config, cut: Cut, stage: str, layer: int | None) -> Compiled:
        label = stage if layer is None else f"{stage} layer {layer}"
        with self._console.status(f"compiling {label} for {self.hardware.name}"):
            found = self._compiler.compile(config, stage, layer)
        if found is None:
            self._console.print(f"[yellow]the compiler crashed on {label}; it is estimated[/]")
            estimated = analytic.estimate(config, cut, stage, layer)
            return dataclasses.replace(estimated, source="estimated: compiler crashed")
        done = "compiled" if found.fits else "too little memory for"
        self._console.print(f"[dim]{done} {label}, after {found.seconds:.0f} s[/]")
        return found
