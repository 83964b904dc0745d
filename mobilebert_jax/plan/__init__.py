"""What a run would need and take on hardware that is not here, from its compiled train steps."""

from pathlib import Path

import rich.console

from mobilebert_jax.config import Config, Execution
from mobilebert_jax.partition import mesh as mesh_lib
from mobilebert_jax.plan import analytic, devices, job, report
from mobilebert_jax.plan.analytic import Cut
from mobilebert_jax.plan.compiled import Compiled, compile_program
from mobilebert_jax.plan.job import Job
from mobilebert_jax.plan.programs import program
from mobilebert_jax.plan.suggest import Tried, search
from mobilebert_jax.plan.topology import Topology, parse
from mobilebert_jax.run.state import Layout


def show(
    config: Config,
    topology: str,
    console: rich.console.Console,
    *,
    suggest: bool = False,
    layers: str = "some",
    json_path: str | None = None,
) -> None:
    """Prints the plan of `config` on the named hardware, and writes it to `json_path` if given.

    With `suggest` also the settings that it would do best with. Raises InputError for hardware that
    is not known, for a missing compiler, and for settings that do not fit the number of devices.
    """
    devices.stay_off_hardware()
    planner = Planner(parse(topology), layers, console)
    planned = planner.make(config)
    report.show(planned, console)
    tried: list[Tried] = []
    if suggest:
        tried = search(config, planner.hardware, planner.estimate, planner.make_ends)
        report.show_suggestion(config, tried, console)
    if json_path:
        report.write(Path(json_path), planned, tried)


class Planner:
    """Makes plans for one machine, and compiles no step twice."""

    def __init__(self, hardware: Topology, layers: str, console: rich.console.Console) -> None:
        self.hardware, self.layers, self.console = hardware, layers, console
        self.devices = devices.compile_only(hardware) if hardware.libtpu else []
        self._compiled: dict[tuple[Execution, str, int | None], Compiled] = {}

    def make(self, config: Config) -> Job:
        """Returns the plan: from compiled steps where there is a compiler, else estimated."""
        return self._make(config, self.layers) if self.devices else self.estimate(config)

    def make_ends(self, config: Config) -> Job:
        """Returns the plan from the first and the last layer alone of a progressive transfer."""
        ends = f"0,{config.student.layers - 1}"
        return self._make(config, ends) if self.devices else self.estimate(config)

    def estimate(self, config: Config) -> Job:
        """Returns the plan without compiling anything, every layer counted."""
        job.chosen_layers(self.layers, config)  # a mistake in it is one here too
        cut = Cut(*mesh_lib._sizes(config.execution.mesh, self.hardware.devices))

        def measure(config: Config, stage: str, layer: int | None) -> Compiled:
            return analytic.estimate(config, cut, stage, layer)

        return job.make(config, self.hardware, cut, "all", measure)

    def _make(self, config: Config, layers: str) -> Job:
        mesh = mesh_lib.make_mesh(config.execution.mesh, self.devices)
        layout = Layout(mesh, config.execution.fsdp_cuts)

        def measure(config: Config, stage: str, layer: int | None) -> Compiled:
            key = (config.execution, stage, layer)
            if key not in self._compiled:
                label = stage if layer is None else f"{stage} layer {layer}"
                with self.console.status(f"compiling {label} for {self.hardware.name}"):
                    step = program(config, layout, stage, layer)
                    found = self._compiled[key] = compile_program(step, config, layout)
                self.console.print(f"[dim]compiled {label} {found.seconds:.0f} s[/]")
            return self._compiled[key]

        cut = Cut(*(mesh.shape[axis] for axis in mesh_lib.AXES))
        return job.make(config, self.hardware, cut, layers, measure)
