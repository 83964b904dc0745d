#!/usr/bin/env bash
# Runs one experiment; the first start makes the virtual environment it needs. See --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

list_experiments() {
  local file title
  for file in "$root"/experiments/*.py; do
    if [[ -f $file ]]; then
      title=$(sed -n '1s/^r\{0,1\}"""//; 1s/"""$//; 1p' "$file")
      printf '  experiments/%-26s %s\n' "${file##*/}" "$title"
    fi
  done
}

usage() {
  cat <<EOF
usage: launch/run.sh EXPERIMENT[:SCALE] [--config.KEY=VALUE ...] [flags]
       launch/run.sh EXPERIMENT[:SCALE] [--config.KEY=VALUE ...] --on LAUNCHER OPTIONS

Trains what EXPERIMENT describes and writes it, with a report, below runs/ in the current folder.
The first start makes .venv with all that is needed. A run that was stopped goes on where it was
when the same line is given again.

experiments:
$(list_experiments)

SCALE is demo (a laptop, minutes), small (one accelerator, hours) or paper (the published job).
EXPERIMENT is a path, from here or from the repository, or the bare name of one listed above.
Any setting can be changed:  launch/run.sh progressive_kt:demo --config.transfer.strategy=joint

LAUNCHER is local (this machine, default), tpu_vm, gke or slurm; --on LAUNCHER --help lists OPTIONS.
--print shows every command and file instead of running anything.

environment:
  PYTHON=python3.12   interpreter to make .venv with; otherwise python3.11, 3.12, 3.13 or python3
  ACCELERATOR=cpu     cpu, cuda or tpu, instead of what the machine is found to have

exit codes: 0 done, 2 mistake in the configuration or the input, 3 numbers not finite,
            42 saved and preempted, 130 interrupted, 134 a peer was lost (start again to go on)
EOF
}

find_experiment() { # NAME
  local candidate
  for candidate in "$1" "$root/$1" "$root/experiments/$1.py"; do
    if [[ -f $candidate ]]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  local python
  python=$(find_python) || exit
  die 2 "$("$python" -I -c '
import difflib, pathlib, sys
name, folder = sys.argv[1:]
paths = {path.stem: f"experiments/{path.name}" for path in sorted(pathlib.Path(folder).glob("*.py"))}
near = difflib.get_close_matches(pathlib.Path(name).stem, paths, n=1, cutoff=0.0)
hint = f"the nearest is {paths[near[0]]}" if near else f"{folder} has none"
print(f"there is no experiment {name!r}; {hint}")' "$1" "$root/experiments")"
}

nearest_launcher() { # NAME
  local python
  python=$(find_python) || exit
  "$python" -I -c '
import difflib, sys
print(difflib.get_close_matches(sys.argv[1], sys.argv[2:], n=1, cutoff=0.0)[0])' \
    "$1" local tpu_vm gke slurm
}

# Takes --on and --print out of the arguments; the rest is the launcher's or the program's.
on=local
print=false
arguments=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --on)
      if [[ $# -lt 2 ]]; then die 2 "--on needs one of local, tpu_vm, gke, slurm"; fi
      on=$2
      shift
      ;;
    --on=*) on=${1#--on=} ;;
    --print) print=true ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
set -- "${arguments[@]+"${arguments[@]}"}"

case $on in
  local) ;;
  tpu_vm | gke | slurm)
    if [[ $print == true ]]; then set -- "$@" --print; fi
    if [[ $# -gt 0 && $1 != -* && " $* " != *" --help "* ]]; then
      name=${1%%:*}
      scale=${1#"$name"}
      experiment=$(find_experiment "$name")
      shift
      set -- "$experiment$scale" "$@"
    fi
    exec bash "$root/launch/$on.sh" "$@"
    ;;
  *) die 2 "there is no launcher '$on'; the nearest is $(nearest_launcher "$on")" ;;
esac

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  '')
    usage >&2
    exit 2
    ;;
  -*) die 2 "the first argument must be an experiment, not '$1'; see launch/run.sh --help" ;;
esac

name=${1%%:*}
scale=${1#"$name"}
shift
experiment=$(find_experiment "$name")
# -P: a file of the current folder that is named like a library must not be imported in its place.
command=("$venv/bin/python" -P -m mobilebert_jax.main --config="$experiment$scale" "$@")
if [[ $print == true ]]; then
  printf -v line ' %q' "${command[@]}"
  printf '%s\n' "${line:1}"
  exit
fi
ensure_venv
if [[ $(find_accelerator) == cpu ]]; then
  keep_memory
fi
exec "${command[@]}"
