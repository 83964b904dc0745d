#!/usr/bin/env bash
# Prints a Python that the environment can be made with. A worker that has none gets one by uv: the
# images of Cloud TPU VMs (Ubuntu 22.04) come with Python 3.10.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

if python=$(find_python 2>/dev/null); then
  printf '%s\n' "$python"
  exit
fi
say "this machine has no Python 3.11 to 3.13; installing 3.12 with uv"
python3 -m pip install --quiet --user uv >&2
python3 -m uv python install --quiet 3.12 >&2
python3 -m uv python find 3.12
