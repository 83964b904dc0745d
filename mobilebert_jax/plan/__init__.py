"""What a run would need and take on hardware that is not here, from its compiled train steps."""

from pathlib import Path

import rich.console

from mobilebert_jax.config.plan_assumptions import DEFAULTS, Assumptions
from mobilebert_jax.config.schema import Config
from mobilebert_jax.plan import (
    as_json,
    child_process,
    compile_time,
    cost_report,
    costs,
    devices,
    report,
)
from mobilebert_jax.plan.planner import Planner
from mobilebert_jax.plan.suggest import Tried, search
from mobilebert_jax.plan.topology import parse


def show(
    config: Config,
    topology: str,
    console: rich.console.Console,
    *,
    suggest: bool = False,
    layers: str = "some",
    json_path: str | None = None,
    assumptions: Assumptions = DEFAULTS,
) -> None:
    """Prints the plan of `config` on the named hardware, and writes it to `json_path` if given.

    What it costs is computed under `assumptions`. With `suggest` also the settings that it would do
    best with. Raises InputError for hardware that is not known, for a missing compiler, and for
    settings that do not fit the number of devices.
    """
    devices.stay_off_hardware()
    hardware = parse(topology)
    tried: list[Tried] = []
    with child_process.compiler(hardware) as compiler:
        planner = Planner(hardware, compiler, layers, console)
        if planner.compiles:
            line = compile_time.announcement(config, layers, suggest)
            console.print(line, markup=False)
        planned = planner.make(config)
        cost = costs.of(planned, assumptions)
        report.show(planned, console)
        cost_report.show(cost, console)
        if suggest:
            tried = search(config, hardware, planner.estimate, planner.make_ends)
            report.show_suggestion(config, tried, console)
    if json_path:
        as_json.write(Path(json_path), planned, cost, tried)
