#!/usr/bin/env bash
# Runs a job on a GKE cluster:  launch/run.sh EXPERIMENT --on gke OPTIONS;  options: --help
# shellcheck disable=SC2154 # the variables of the plan come from plan.py
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=remote.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/remote.sh"
prepare gke "$@"

cluster=(kubectl --namespace="$namespace")
if [[ -n $context ]]; then cluster+=(--context="$context"); fi
all_pods=jobset.sigs.k8s.io/jobset-name=$name
first_pod=$all_pods,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0

# What the job set says of its end (Completed, Failed), RUNNING or ABSENT.
find_state() {
  local state
  if state=$("${cluster[@]}" get jobset "$name" -o 'jsonpath={.status.terminalState}' \
    2>"$work/error"); then
    printf '%s\n' "${state:-RUNNING}"
  elif grep -qiE 'NotFound|not found' "$work/error"; then
    echo ABSENT
  else
    cat "$work/error" >&2
    die 1 "kubectl could not say whether the job set $name exists"
  fi
}

submit() {
  act "${cluster[@]}" delete jobset,configmap "$name" --ignore-not-found
  act "${cluster[@]}" create configmap "$name" --from-file=job.tar.gz="$work/job.tar.gz"
  act "${cluster[@]}" apply -f "$work/jobset.yaml"
}

newest_first_pod() {
  "${cluster[@]}" get pods -l "$first_pod" --field-selector=status.phase!=Pending \
    --sort-by=.metadata.creationTimestamp -o name | tail -n 1
}

# Shows the log of the first process, over all restarts, until the job set has ended.
follow() {
  local pod shown='' since='' state
  while true; do
    state=$(find_state) || exit
    pod=$(newest_first_pod) || exit
    if [[ -n $pod && $pod != "$shown" ]]; then
      say "following $pod"
      since=
    fi
    if [[ -n $pod && ($pod != "$shown" || $state == RUNNING) ]]; then
      # The connection of a long log may end before the pod does.
      "${cluster[@]}" logs -f "$pod" -c program ${since:+--since-time="$since"} || true
      since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
      shown=$pod
    elif [[ $state != RUNNING ]]; then
      return
    fi
    sleep "$poll"
  done
}

exit_codes() {
  "${cluster[@]}" get pods -l "$all_pods" -o \
    'jsonpath={range .items[*]}{.status.containerStatuses[0].state.terminated.exitCode}{"\n"}{end}'
}

warn_of_private_folder
show_archive
show_file "$work/jobset.yaml" jobset.yaml
if [[ -n $print ]]; then
  submit
  note "the log of the first process, and at the end the exit codes of all:"
  act "${cluster[@]}" logs -f -l "$first_pod" -c program
  act "${cluster[@]}" get pods -l "$all_pods"
  exit
fi

state=$(find_state) || exit
if [[ $state == RUNNING ]]; then
  say "the job set $name is running already and is left as it is"
else
  submit || die 1 "kubectl could not submit the job set $name"
fi
if [[ -n $detach ]]; then
  say "submitted; to follow it, give the same command without --detach"
  exit
fi
trap 'say "no longer following; the job goes on: the same command follows it," \
  "and \"kubectl delete jobset $name\" ends it"
  exit 130' INT
follow
state=$(find_state) || exit
if [[ $state == Complete* ]]; then
  say "exit code 0"
  exit 0
fi
codes=$(exit_codes)
# shellcheck disable=SC2086 # one word each
result=$(worst 1 $codes)
say "the job set $name is $state; exit code $result"
exit "$result"
