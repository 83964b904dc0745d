"""The options of the launchers, and how a command line is cut into them and the program's own."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Mistake(Exception):
    """A command line that cannot be followed; the message says why and what would be valid."""


@dataclass(frozen=True)
class Option:
    """One option `--name`; a switch where `value` is empty."""

    name: str
    value: str
    meaning: str
    default: str = ""
    required: bool = False
    many: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ".+"


NUMBER, COUNT = r"\d+", r"[1-9]\d*"
NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
CAPACITY = ("on-demand", "spot", "reserved")
TPU_TYPES = ("v3", "v4", "v5e", "v5p", "v6e", "tpu7x")

COMMON = (
    Option(
        "name", "NAME", "of the job; otherwise made from experiment and scale", "", pattern=NAME
    ),
    Option(
        "code",
        "HOW",
        "commit: fetched by the workers; archive: the working tree is sent; auto: commit if "
        "everything is committed and pushed to an https remote, otherwise archive",
        "auto",
        choices=("auto", "commit", "archive"),
    ),
    Option("print", "", "show all commands and files and do nothing"),
)
TPU_VM = (
    Option("zone", "ZONE", "such as us-central2-b", required=True),
    Option("tpu-type", "TYPE", "accelerator type, such as v5litepod-16", required=True),
    Option("project", "PROJECT", "otherwise that of gcloud's configuration"),
    Option("slices", "N", "more than 1: multislice", "1", pattern=COUNT),
    Option("capacity", "KIND", "what to create it from", "on-demand", choices=CAPACITY),
    Option("runtime-version", "VERSION", "otherwise the usual one of the type"),
    Option("service-account", "EMAIL", "whose rights the workers have"),
    Option("create-flag", "FLAG", "passed to `queued-resources create` as it is", many=True),
    Option("internal-ip", "", "connect by internal addresses"),
    Option("restarts", "N", "restarts without progress on the workers", "5", pattern=NUMBER),
    Option("backoff", "SECONDS", "before the first restart, doubled", "10", pattern=NUMBER),
    Option("recreate", "N", "times to create it anew after it was taken away", "0", pattern=NUMBER),
    Option("delete", "", "delete it when the job has ended, however it ended"),
    Option("stop", "", "ask the running job to save and end"),
)
GKE = (
    Option("tpu-type", "TYPE", "of the node pool", choices=TPU_TYPES),
    Option("topology", "SHAPE", "chips of a slice, such as 4x4", pattern=r"\d+x\d+(x\d+)?"),
    Option("slices", "N", "more than 1: multislice", "1", pattern=COUNT),
    Option("chips-per-host", "N", "otherwise the usual number of the type", "", pattern=COUNT),
    Option("gpu-type", "TYPE", "instead of a TPU, such as nvidia-h100-80gb"),
    Option("gpus-per-node", "N", "with --gpu-type", pattern=COUNT),
    Option("nodes", "N", "with --gpu-type; one process on each", "1", pattern=COUNT),
    Option("image", "IMAGE", "with bash, tar, git and Python", "python:3.12-bookworm"),
    Option("capacity", "KIND", "nodes to select", "on-demand", choices=CAPACITY),
    Option("reservation", "NAME", "with --capacity reserved"),
    Option("context", "NAME", "of kubectl; otherwise the current one"),
    Option("namespace", "NAME", "of the cluster", "default"),
    Option("service-account", "NAME", "of the cluster, with the rights to the bucket"),
    Option("queue", "NAME", "local queue of Kueue, which clusters made by XPK use"),
    Option("privileged", "", "privileged container, which older GKE versions need for TPUs"),
    Option("restarts", "N", "restarts of the whole job set", "20", pattern=NUMBER),
    Option("detach", "", "do not follow the job"),
)
SLURM = (
    Option("gpus-per-node", "N", "one process each; 0: CPU", required=True, pattern=NUMBER),
    Option("time", "LIMIT", "such as 24:00:00", required=True),
    Option("nodes", "N", "number of nodes", "1", pattern=COUNT),
    Option("partition", "NAME", "otherwise the cluster's default"),
    Option("account", "NAME", "to be charged"),
    Option("sbatch", "OPTION", "any other option of sbatch, such as --mem=64G", many=True),
    Option("restarts", "N", "requeues without progress", "5", pattern=NUMBER),
    Option("follow", "", "show the log and end with the job's exit code"),
)
# Flags of the program that workers get, that make sense only here, and that launchers set.
PASSED_ON = ("--config.", "--profile=")
ONLY_HERE = ("dry_run", "nodry_run", "plan", "suggest", "plan_layers", "plan_json")
SET_BY_LAUNCHERS = ("coordinator", "processes", "process")
LAUNCHERS = {"tpu_vm": TPU_VM + COMMON, "gke": GKE + COMMON, "slurm": SLURM + COMMON}

Values = dict[str, str | list[str]]


def parse(launcher: str, arguments: Sequence[str]) -> tuple[Values, list[str]]:
    """Returns the launcher's options by name, and the arguments that are the program's.

    Raises Mistake for an unknown option (with the nearest), a wrong value, and for all required
    options that are missing, together.
    """
    table = {option.name: option for option in LAUNCHERS[launcher]}
    values: Values = {o.name: [] if o.many else o.default for o in table.values()}
    program: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith(PASSED_ON):
            program.append(argument)
            continue
        name, given, value = argument.removeprefix("--").partition("=")
        option = table.get(name) if argument.startswith("--") else None
        if option is None:
            raise Mistake(_unknown(argument, launcher, table))
        if option.value and not given:
            if not rest:
                raise Mistake(f"--{name} needs a value: --{name}={option.value}")
            value = rest.pop(0)
        _store(values, option, value if option.value else "true")
    _check_required(launcher, values)
    return values, program


def _unknown(argument: str, launcher: str, known: Iterable[str]) -> str:
    if not argument.startswith("--"):
        return f"unexpected argument {argument!r}"
    name = argument.removeprefix("--").partition("=")[0]
    if name in ONLY_HERE:
        return f"--{name} works here, without --on; to see what would be done, use --print"
    if name in SET_BY_LAUNCHERS:
        return f"--{name} is found out by the workers or set by the launcher"
    near = difflib.get_close_matches(name, [*known, "config.KEY", "profile"], n=1, cutoff=0.0)[0]
    return f"--on {launcher} has no option --{name}; the nearest is --{near}"


def _store(values: Values, option: Option, value: str) -> None:
    """Checks one value and keeps it."""
    if option.choices and value not in option.choices:
        near = difflib.get_close_matches(value, option.choices, n=1, cutoff=0.0)[0]
        raise Mistake(
            f"--{option.name}={value} is not one of {', '.join(option.choices)}; "
            f"the nearest is {near}"
        )
    if option.value and not re.fullmatch(option.pattern, value):
        raise Mistake(
            f"--{option.name}={value!r} does not fit; {option.value} is {option.meaning} "
            f"(pattern {option.pattern})"
        )
    if option.many:
        values[option.name] = [*values[option.name], value]
    else:
        values[option.name] = value


def _check_required(launcher: str, values: Values) -> None:
    required = [option.name for option in LAUNCHERS[launcher] if option.required]
    if launcher == "tpu_vm" and values["stop"]:
        required = ["zone"]
    if launcher == "gke":
        gpu = values["gpu-type"] or values["gpus-per-node"]
        if gpu and (values["tpu-type"] or values["topology"]):
            raise Mistake("--gpu-type and --tpu-type exclude each other")
        required = ["gpu-type", "gpus-per-node"] if gpu else ["tpu-type", "topology"]
        if values["capacity"] == "reserved":
            required.append("reservation")
    missing = [f"--{name}" for name in required if not values[name]]
    if missing:
        raise Mistake(f"--on {launcher} needs {', '.join(missing)}")


def describe(launcher: str) -> str:
    """Returns the list of a launcher's options for people."""
    lines = [
        f"usage: launch/run.sh EXPERIMENT[:SCALE] [--config.KEY=VALUE ...] --on {launcher} OPTIONS",
        "",
    ]
    for option in LAUNCHERS[launcher]:
        shown = f"--{option.name}" + (f"={option.value}" if option.value else "")
        notes = [option.meaning]
        if option.choices:
            notes.append("one of " + ", ".join(option.choices))
        if option.default:
            notes.append(f"default {option.default}")
        if option.required:
            notes.append("required")
        if option.many:
            notes.append("may be repeated")
        lines.append(f"  {shown:<26} {'; '.join(notes)}")
    return "\n".join(lines)
