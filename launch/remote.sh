# shellcheck shell=bash
# Sourced by the launchers of other machines: plans the job, checks its configuration on this one,
# and runs commands or, with --print, only shows them.
# shellcheck disable=SC2154 # the variables of the plan come from plan.py
# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

# shellcheck disable=SC2034 # read by the launchers
poll=${POLL_SECONDS:-15}

prepare() { # LAUNCHER EXPERIMENT[:SCALE] ARGUMENT...
  local launcher=$1 python assignments argument environment=cpu
  shift
  python=$(find_python) || exit
  for argument in "$@"; do
    if [[ $argument == --help || $argument == -h ]]; then
      exec "$python" -B "$root/launch/plan.py" "$launcher" --help
    fi
  done
  if [[ $# -eq 0 || $1 == -* ]]; then
    die 2 "the first argument must be an experiment; see launch/run.sh --help"
  fi
  work=$(mktemp -d "${TMPDIR:-/tmp}/launch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  assignments=$("$python" -B "$root/launch/plan.py" "$launcher" "$work" "$@") || exit
  eval "$assignments"
  # SLURM's nodes use the environment that is made here; elsewhere the workers make their own.
  if [[ $launcher == slurm ]]; then environment=$accelerator; fi
  check_configuration "$environment"
  say "code: $code"
}

# A mistake must come to light here and now, not on the workers after the time in a queue.
check_configuration() { # ACCELERATOR
  if [[ -z $print ]]; then
    ACCELERATOR=$1 ensure_venv
  elif [[ ! -x $venv/bin/python ]]; then
    say "the configuration is not checked: .venv has not been made yet"
    runs_dir=
    return
  fi
  JAX_PLATFORMS=cpu "$venv/bin/python" -P -m mobilebert_jax.main --config="$target" \
    "${program[@]+"${program[@]}"}" --dry_run >/dev/null || exit
  runs_dir=$("$venv/bin/python" -P "$root/launch/runs_dir.py" "$target" \
    "${program[@]+"${program[@]}"}") || exit
}

# All processes of a run read and write the same checkpoints.
warn_of_private_folder() {
  case $runs_dir in
    gs://* | /* | '') ;;
    *)
      say "warning: results go to '$runs_dir' on each worker's own disk: hosts do not see each" \
        "other's checkpoints, and nothing outlives the machine." \
        "Set --config.execution.runs_dir=gs://BUCKET/runs"
      ;;
  esac
}

act() { # COMMAND...
  if [[ -z $print ]]; then
    "$@"
  else
    local line
    printf -v line ' %q' "$@"
    printf '%s\n' "${line:1}"
  fi
}

note() { # TEXT...: explains the commands that --print shows
  if [[ -n $print ]]; then printf '# %s\n' "$*"; fi
}

show_file() { # PATH SHOWN_AS
  if [[ -n $print ]]; then
    printf '==> %s <==\n' "$2"
    cat -- "$1"
    printf '==> end of %s <==\n' "$2"
  fi
}

show_archive() {
  show_file "$work/contents.txt" "files in job.tar.gz"
  show_file "$work/job.sh" "job.sh in job.tar.gz"
}

# Of several processes' exit codes the one that says most about the job: what must be corrected,
# then that it was interrupted, then any other failure.
worst() { # CODE...
  local wanted code most=0
  for wanted in 2 3 42; do
    for code in "$@"; do
      if [[ $code -eq $wanted ]]; then
        echo "$wanted"
        return
      fi
    done
  done
  for code in "$@"; do
    if [[ $code -gt $most ]]; then most=$code; fi
  done
  echo "$most"
}
