#!/usr/bin/env bash
# Checks the repository:  launch/test.sh [--all | --fuzz SECONDS] [pytest arguments]
#
# Lint, format, types, then the tests that need neither much time nor anything but .venv.
# --all adds the slow ones (one needs the program shellcheck), those in a browser (they need
# chromium), the comparisons with PyTorch and a run in an imitated bucket, for which two it makes
# .venv-parity. With --all all readers of files are attacked for two minutes in all; --fuzz does
# nothing else, for as long as it says. FUZZ_SEED=N draws other attacks.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
cd -- "$root"

step() {
  say "$*"
  "$@"
}

run_tests_above() {
  local status=0
  step .venv-parity/bin/python -m pytest -m "parity or bucket" "$several" "$@" || status=$?
  # 5 is "nothing selected": what a selection of other tests leaves here, otherwise a failure.
  if [[ $status -ne 0 && ! ($status -eq 5 && $# -gt 0) ]]; then
    exit "$status"
  fi
}

# Slow tests wait for processes that they kill: one more of them than there are cores costs nothing.
several=--numprocesses=$(($(nproc) + 1))
all=false
case ${1:-} in
  --all)
    all=true
    shift
    ;;
  --fuzz)
    if [[ ! ${2:-} =~ ^[0-9]{1,6}$ ]]; then die 2 "--fuzz needs a number of seconds, such as 3600"; fi
    export FUZZ_SECONDS=$2
    shift 2
    ensure_venv
    step .venv/bin/python -m pytest -m fuzz --dist=load "$several" "$@"
    exit
    ;;
esac

ensure_venv
step .venv/bin/ruff check
step .venv/bin/ruff format --check
step .venv/bin/python -m mypy
if [[ $all == true ]]; then
  ensure_parity_venv
  run_tests_above "$@"
  step .venv/bin/python -m pytest -m "not parity and not bucket" "$several" "$@"
else
  step .venv/bin/python -m pytest "$@"
fi
