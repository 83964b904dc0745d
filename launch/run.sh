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

Trains what EXPERIMENT describes and writes it, with a report, below runs/ in the current folder.
The first start makes .venv with all that is needed. A run that was stopped goes on where it was
when the same line is given again.

experiments:
$(list_experiments)

SCALE is demo (a laptop, minutes), small (one accelerator, hours) or paper (the published job).
EXPERIMENT is a path, from here or from the repository, or the bare name of one listed above.
Any setting can be changed:  launch/run.sh progressive_kt:demo --config.transfer.strategy=joint

environment:
  PYTHON=python3.12   interpreter to make .venv with; otherwise python3.11, 3.12, 3.13 or python3
  ACCELERATOR=cpu     cpu, cuda or tpu, instead of what the machine is found to have

exit codes: 0 done, 2 mistake in the configuration or the input, 3 numbers not finite,
            42 saved and preempted, 134 a peer was lost (start again to go on)
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
ensure_venv
# -P: a file of the current folder that is named like a library must not be imported in its place.
exec "$venv/bin/python" -P -m mobilebert_jax.main --config="$experiment$scale" "$@"
