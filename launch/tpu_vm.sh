#!/usr/bin/env bash
# Runs a job on Cloud TPU VMs:  launch/run.sh EXPERIMENT --on tpu_vm OPTIONS;  options: --help
# shellcheck disable=SC2154 # the variables of the plan come from plan.py
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=remote.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/remote.sh"
prepare tpu_vm "$@"

place=(--zone="$zone")
if [[ -n $project ]]; then place+=(--project="$project"); fi
reach=("${place[@]}" --worker=all)
if [[ -n $internal_ip ]]; then reach+=(--internal-ip); fi
queue=(gcloud compute tpus queued-resources)
hosts=(gcloud compute tpus tpu-vm)
# Of several slices, each a TPU VM of its own, the queued resource addresses all hosts at once.
if [[ $slices -gt 1 ]]; then
  hosts=("${queue[@]}")
  reach+=(--node=all --batch-size=all)
fi

usual_runtime() {
  case $tpu_type in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) die 2 "--tpu-type=$tpu_type: no usual runtime version is known; give --runtime-version" ;;
  esac
}

# The state of the queued resource; VM for a TPU VM that was made without one; ABSENT.
find_state() {
  if [[ -n $print ]]; then
    echo ABSENT
    return
  fi
  if describe 2>"$work/error"; then
    return
  fi
  must_be_absent
  if gcloud compute tpus tpu-vm describe "$name" "${place[@]}" >/dev/null 2>"$work/error"; then
    echo VM
    return
  fi
  must_be_absent
  echo ABSENT
}

describe() { act "${queue[@]}" describe "$name" "${place[@]}" --format='value(state.state)'; }

# A lack of rights or of a network must not be taken for a lack of the machine.
must_be_absent() {
  if ! grep -qiE 'NOT_FOUND|not found' "$work/error"; then
    cat "$work/error" >&2
    die 1 "gcloud could not say whether $name exists"
  fi
}

create() {
  local flags=(--accelerator-type="$tpu_type" --runtime-version="$runtime_version")
  if [[ $slices -gt 1 ]]; then
    flags+=(--node-count="$slices" --node-prefix="$name")
  else
    flags+=(--node-id="$name")
  fi
  case $capacity in
    spot) flags+=(--spot) ;;
    reserved) flags+=(--reserved) ;;
  esac
  if [[ -n $service_account ]]; then flags+=(--service-account="$service_account"); fi
  act "${queue[@]}" create "$name" "${place[@]}" "${flags[@]}" "${create_flag[@]+"${create_flag[@]}"}"
}

delete_it() {
  if [[ $(find_state) == VM ]]; then
    act gcloud compute tpus tpu-vm delete "$name" "${place[@]}" --quiet
  else
    act "${queue[@]}" delete "$name" "${place[@]}" --force --quiet
  fi
}

was_taken_away() { # STATE
  case $1 in
    SUSPENDING | SUSPENDED | FAILED | ABSENT) return 0 ;;
  esac
  return 1
}

# Leaves TPU VMs that can be reached, made now or earlier.
obtain() {
  local state told=
  state=$(find_state) || exit
  if [[ $state == ABSENT ]]; then
    note "if $name does not exist yet:"
    create || die 1 "gcloud could not create $name"
    if [[ -n $print ]]; then
      note "until the state of $name is ACTIVE:"
      describe
      return
    fi
    state=$(find_state) || exit
  fi
  while [[ $state != ACTIVE && $state != VM ]]; do
    if was_taken_away "$state"; then
      die 1 "$name is $state: delete it, or let it be made anew with --recreate=N"
    fi
    if [[ $state != "$told" ]]; then say "$name is $state; waiting for ACTIVE"; fi
    told=$state
    sleep "$poll"
    state=$(find_state) || exit
  done
}

on_all_hosts() { # COMMAND
  act "${hosts[@]}" ssh "$name" "${reach[@]}" --command="$1"
}

send() {
  act cp "$work/job.tar.gz" "$work/mobilebert_jax_job.tar.gz"
  act cp "$root/launch/worker.sh" "$work/mobilebert_jax_worker.sh"
  act "${hosts[@]}" scp "$work/mobilebert_jax_job.tar.gz" "$work/mobilebert_jax_worker.sh" \
    "$name:" "${reach[@]}" || die 1 "gcloud could not copy the job to $name"
}

# Runs the job to its end. The hosts say their exit codes; gcloud's own is only the first that is
# not 0, and not even that where the connection broke.
result=0
lost=false
run_job() {
  local status=0 codes
  on_all_hosts "bash mobilebert_jax_worker.sh run $digest $start" 2>&1 | tee "$work/output" ||
    status=${PIPESTATUS[0]}
  codes=$(sed -n 's/.*launch: ended with exit code \([0-9]*\)$/\1/p' "$work/output")
  lost=false
  if [[ $status -eq 255 || ($status -ne 0 && -z $codes) ]]; then lost=true; fi
  # shellcheck disable=SC2086 # one word each
  result=$(worst "$status" $codes)
}

if [[ -n $stop ]]; then
  on_all_hosts "bash mobilebert_jax_worker.sh stop"
  exit
fi
if [[ -z $runtime_version ]]; then runtime_version=$(usual_runtime) || exit; fi
warn_of_private_folder
if [[ -n $delete && $runs_dir != gs://* ]]; then
  die 2 "--delete would delete the results, in '$runs_dir' on $name, too:" \
    "set --config.execution.runs_dir=gs://BUCKET/runs"
fi
start=$(date +%s)-$$
show_archive
trap 'say "no longer following; the job goes on: the same command follows it, with --stop it ends"
  exit 130' INT
if [[ $recreate -gt 0 && $(find_state) =~ ^(SUSPENDED|FAILED)$ ]]; then
  delete_it
fi
while true; do
  obtain
  send
  run_job
  if [[ $lost == false ]]; then
    break
  fi
  state=$(find_state) || exit
  if ! was_taken_away "$state"; then
    die 1 "the connection to $name was lost and the job goes on: the same command follows it again"
  fi
  if [[ $recreate -eq 0 ]]; then
    die 42 "$name was taken away ($state); make it anew with --recreate=N to go on"
  fi
  recreate=$((recreate - 1))
  say "$name was taken away ($state); making it anew, $recreate times more"
  if [[ $state != ABSENT ]]; then delete_it; fi
done
if [[ -n $delete ]]; then
  note "when the job has ended:"
  delete_it
fi
if [[ -z $print ]]; then say "exit code $result"; fi
exit "$result"
