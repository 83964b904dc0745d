"""What published jobs say of the plan: the factor that makes *likely* out of a step's estimate.

A factor is what a job took over what was estimated for it. Each generation of chips has its own,
from the jobs measured on it; a generation without any has the mean of the others.
`calibration.json` holds what the factors are computed from; `python -m benchmarks.published_jobs`
makes it anew.

The jobs trained BERT-Large. Estimated is this project's teacher in its place, as large to a
twentieth: the factor is for programs that are written for a TPU as theirs were, which BERT-Large's,
with heads of 64, is not here. Their times count by the two networks' model FLOPs.
"""

import dataclasses
import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("calibration.json")
STAND_IN, TRAINED = "ib_bert_large", "bert_large"
WHOLE_JOBS = 0.25
"""Weight of the whole jobs of one experiment together, beside 1 of a job whose steps were timed:
start, evaluation and checkpoints are in their times, so that they get twice the bound."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """Seconds of all steps of a job with one of the two networks, and their model FLOPs on the
    machine that they were compiled for."""

    flops: float
    low_s: float
    estimated_s: float
    """By the compiler, messages hidden behind the computation. So the two jobs of v4, of which one
    sends eight times as much for its time, have factors 6 % apart; with messages added 8."""
    high_s: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A measured job beside its plan."""

    job: str
    chip: str
    topology: str
    source: str
    whole_job: bool
    measured_s: float
    """Of all its steps; in a whole job of everything else too."""
    trained: Planned
    stand_in: Planned

    @property
    def stand_in_s(self) -> float:
        """What the stand-in would have taken at the same FLOP/s."""
        return self.measured_s * self.stand_in.flops / self.trained.flops

    @property
    def ratio(self) -> float:
        return self.stand_in_s / self.stand_in.estimated_s


@dataclasses.dataclass(frozen=True)
class Factor:
    """Likely over estimated time on one chip, and the least and most of a single job."""

    value: float
    least: float
    most: float
    jobs: int
    chips: tuple[str, ...]
    """Those that the jobs ran on; not the chip itself where it has none."""


@functools.cache
def comparisons(path: Path = FILE) -> tuple[Comparison, ...]:
    """Returns the published jobs that were compiled, as `path` holds them."""
    content = json.loads(path.read_text())
    return tuple(_comparison(job, content["steps"]) for job in content["jobs"])


def _comparison(job: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]) -> Comparison:
    own = [step for step in steps if step["program"] == job["program"]]
    return Comparison(
        job=job["name"],
        chip=job["chip"],
        topology=job["topology"],
        source=job["source"],
        whole_job=job["whole_job"],
        measured_s=job["measured_s"],
        trained=_planned(job["steps"], [step for step in own if step["network"] == TRAINED]),
        stand_in=_planned(job["steps"], [step for step in own if step["network"] == STAND_IN]),
    )


def _planned(steps: int, kinds: Sequence[Mapping[str, Any]]) -> Planned:
    def total(name: str) -> float:
        return float(steps * sum(kind["share"] * kind[name] for kind in kinds))

    return Planned(total("flops"), total("from_s"), total("compiler_s"), total("to_s"))


def factor(chip: str, known: Iterable[Comparison] | None = None) -> Factor:
    """Returns the factor of a chip from the jobs `known`, otherwise all.

    That of a chip without a job is the mean of the other chips'. Raises ValueError without any job.
    """
    jobs = list(comparisons() if known is None else known)
    own = [job for job in jobs if job.chip == chip]
    used = own or jobs
    if not used:
        raise ValueError("there is no job to calibrate on")
    chips = tuple(sorted({job.chip for job in used}))
    ratios = [job.ratio for job in used]
    values = [_mean([job for job in used if job.chip == one]) for one in chips]
    value = math.exp(sum(map(math.log, values)) / len(values))
    return Factor(value, min(ratios), max(ratios), len(used), chips)


def _mean(jobs: Sequence[Comparison]) -> float:
    """The weighted geometric mean of the jobs' ratios."""
    rows = Counter(job.source for job in jobs)
    weights = [WHOLE_JOBS / rows[job.source] if job.whole_job else 1.0 for job in jobs]
    logs = [weight * math.log(job.ratio) for weight, job in zip(weights, jobs, strict=True)]
    return math.exp(sum(logs) / sum(weights))


def predicted(job: Comparison, jobs: Sequence[Comparison]) -> float:
    """Returns the likely seconds of the stand-in for a job, by the others of `jobs` alone."""
    others = [other for other in jobs if other.job != job.job]
    return factor(job.chip, others).value * job.stand_in.estimated_s


def likely(chip: str, compiler: float | None, low: float, high: float) -> float:
    """Returns likely seconds of a step between or beyond `low` and `high`.

    Without a compiler's estimate there is nothing to correct: the geometric mean of both is taken.
    """
    if compiler is None:
        return math.sqrt(low * high)
    return max(low, factor(chip).value * compiler)


def words(chip: str, compiled: bool, known: Iterable[Comparison] | None = None) -> str:
    """Returns a sentence on how *likely* is made for a chip, and whether that is calibrated."""
    if not compiled:
        return "the geometric mean of from and to; not calibrated, nothing was compiled"
    made = factor(chip, known)
    spread = f"{made.value:.2f} times the compiler's estimate ({made.least:.2f} to "
    spread += f"{made.most:.2f}, job by job)"
    if chip in made.chips:
        return f"{spread}, from {made.jobs} published job(s) on {chip}"
    return f"{spread}, the mean of {' and '.join(made.chips)}; not calibrated: no job on {chip}"
