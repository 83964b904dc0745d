#!/usr/bin/env bash
# Runs a command and starts it again after an interruption:
#
#   launch/supervise.sh [--restarts N] [--backoff SECONDS] [--] COMMAND...
#
# Exit codes 42 (saved and preempted), 134 (a peer was lost), 137 and 143 (killed) and 139 (crashed,
# as a process that lost a peer may while it prints its stacks) are met with a new start after SECONDS
# (default 10), twice as many the next time, 300 at most; every other code is returned as it is. Restarts without progress are limited to N (default 5). Progress is a growing
# PROGRESS_FILE: COMMAND appends a line to it for every checkpoint and stage that it has completed.
# SIGTERM and SIGINT are passed on to COMMAND and end it without another start.
set -euo pipefail

say() { printf 'supervise: %s\n' "$*" >&2; }

refuse() {
  say "$*"
  say "usage: launch/supervise.sh [--restarts N] [--backoff SECONDS] [--] COMMAND..."
  exit 2
}

need_number() { # OPTION VALUE
  if [[ ! ${2:-} =~ ^[0-9]+$ ]]; then
    refuse "$1 needs a whole number, not '${2:-}'"
  fi
}

restarts=5
backoff=10
longest=300
while [[ $# -gt 0 ]]; do
  case $1 in
    --restarts | --backoff)
      need_number "$1" "${2:-}"
      if [[ $1 == --restarts ]]; then restarts=$2; else backoff=$2; fi
      shift 2
      ;;
    --)
      shift
      break
      ;;
    -*) refuse "there is no option $1; there are --restarts and --backoff" ;;
    *) break ;;
  esac
done
if [[ $# -eq 0 ]]; then
  refuse "no command given"
fi

# A caller that outlives this supervisor (a requeued job) gives a file of its own.
if [[ -z ${PROGRESS_FILE:-} ]]; then
  PROGRESS_FILE=$(mktemp "${TMPDIR:-/tmp}/progress.XXXXXX")
  trap 'rm -f "$PROGRESS_FILE"' EXIT
fi
export PROGRESS_FILE

child=
pausing=
signalled=
# shellcheck disable=SC2317 # called by the traps
pass_on() { # SIGNAL
  signalled=$1
  if [[ -n $child ]]; then
    say "SIG$1: passed on to the command; waiting for it to end"
    kill "-$1" "$child" 2>/dev/null || true
  elif [[ -n $pausing ]]; then
    kill "$pausing" 2>/dev/null || true
  fi
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
trap 'pass_on TERM' HUP # the terminal is gone; COMMAND, in its own group, would not notice

# A signal interrupts `wait`, which then tells nothing of the child: it is asked again.
wait_for_child() {
  local seen
  while true; do
    seen=$signalled
    signalled=
    code=0
    wait "$child" 2>/dev/null || code=$?
    if [[ -z $signalled ]]; then
      signalled=$seen
      return
    fi
  done
}

run_once() {
  # Job control gives the child a process group of its own: Ctrl-C reaches it once, through here,
  # and not as an ignored signal, which is what a plain background process would inherit.
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  if [[ -n $signalled ]]; then pass_on "$signalled"; fi # it came before there was a child
  wait_for_child
  child=
}

progress() { wc -c <"$PROGRESS_FILE" 2>/dev/null || echo 0; }

code=143
fruitless=0
pause=$backoff
while [[ -z $signalled ]]; do
  before=$(progress)
  run_once "$@"
  if [[ -n $signalled ]]; then
    say "the command ended with exit code $code after SIG$signalled; not started again"
    break
  fi
  case $code in
    42 | 134 | 137 | 139 | 143) ;;
    0) break ;;
    *)
      say "the command ended with exit code $code; another start would not help"
      break
      ;;
  esac
  if [[ $(progress) -gt $before ]]; then
    fruitless=0
    pause=$backoff
  fi
  if [[ $fruitless -ge $restarts ]]; then
    say "exit code $code; given up after $fruitless restarts without progress"
    break
  fi
  fruitless=$((fruitless + 1))
  say "exit code $code; starting again in $pause s ($fruitless of $restarts without progress)"
  sleep "$pause" &
  pausing=$!
  if [[ -n $signalled ]]; then pass_on "$signalled"; fi
  wait "$pausing" 2>/dev/null || true
  pausing=
  pause=$((pause * 2 > longest ? longest : pause * 2))
done
exit "$code"
