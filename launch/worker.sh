#!/usr/bin/env bash
# Runs on every host of a Cloud TPU VM, beside mobilebert_jax_job.tar.gz:
#
#   mobilebert_jax_worker.sh run DIGEST START   starts the job, or finds it, and follows it
#   mobilebert_jax_worker.sh stop               asks the job to save and end
#
# The job does not hang on the connection that started it: gcloud repeats a command whose connection
# was lost, and a person may close the laptop and come back. DIGEST tells jobs apart, START the
# commands that were given, so that a repetition never starts a job a second time.
set -euo pipefail

folder=$HOME/mobilebert_jax
state=$HOME/mobilebert_jax_state
host=$(hostname)

say() { printf '[%s] launch: %s\n' "$host" "$*"; }

recorded() { cat "$state/$1" 2>/dev/null || true; }

is_running() {
  local pid
  pid=$(recorded pid)
  [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null
}

start() { # DIGEST START
  rm -rf "$state"
  mkdir -p "$state" "$folder"
  # .venv stays: it is made anew only where the requirements have changed.
  rm -rf "$folder/launch" "$folder/experiments" "$folder/mobilebert_jax"
  tar -xzf "$HOME/mobilebert_jax_job.tar.gz" -C "$folder"
  printf '%s\n' "$1" >"$state/digest"
  printf '%s\n' "$2" >"$state/start"
  : >"$state/log"
  # The shell that keeps the exit code must outlive the SIGTERM that is meant for the job.
  # shellcheck disable=SC2016
  setsid nohup bash -c '
    trap : TERM
    code=0
    bash "$1/job.sh" || code=$?
    echo "$code" >"$2/code"' job "$folder" "$state" >>"$state/log" 2>&1 </dev/null &
  echo "$!" >"$state/pid"
}

# A machine that was restarted has no process and no code: the job was killed.
follow() { # LINES
  local code
  tail --sleep-interval=0.2 -n "$1" --pid="$(recorded pid)" -f "$state/log" | sed -u "s/^/[$host] /"
  code=$(recorded code)
  say "ended with exit code ${code:-137}"
  exit "${code:-137}"
}

case ${1:-} in
  run)
    if is_running; then
      if [[ $(recorded digest) != "$2" ]]; then
        say "another job is running here: end it with --stop, or wait"
        say "ended with exit code 2"
        exit 2
      fi
      say "the job is running already; its last lines:"
      follow 100
    fi
    if [[ $(recorded start) != "$3" ]]; then
      start "$2" "$3"
    fi
    follow +1
    ;;
  stop)
    if is_running; then
      kill -TERM -- "-$(recorded pid)"
      say "asked to save and end"
    else
      say "nothing is running"
    fi
    ;;
  *)
    say "usage: run DIGEST START | stop"
    exit 2
    ;;
esac
