#!/usr/bin/env bash
# Submits a job to SLURM:  launch/run.sh EXPERIMENT --on slurm OPTIONS;  options: --help
# shellcheck disable=SC2154 # the variables of the plan come from plan.py
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=remote.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/remote.sh"
prepare slurm "$@"

# The code of this moment, so that a job that waits is not changed by later edits. Compute nodes
# often have no way to the internet: the environment is the one made here.
lay_out() {
  act mkdir -p "$job_folder"
  act tar -xzf "$work/job.tar.gz" -C "$job_folder"
  act cp "$work/job.sbatch" "$job_folder/job.sbatch"
  act ln -s "$venv" "$job_folder/.venv"
}

show_log() {
  touch "$job_folder/log.txt"
  tail -n +1 -F "$job_folder/log.txt" 2>/dev/null &
  local tail=$!
  trap 'kill "$tail" 2>/dev/null' RETURN
  local absences=0 # one may be a passing fault of the controller
  while [[ ! -s $job_folder/code && $absences -lt 3 ]]; do
    if [[ -n $(squeue --noheader --jobs="$id" --format=%T 2>/dev/null) ]]; then
      absences=0
    else
      absences=$((absences + 1))
    fi
    sleep "$poll"
  done
  sleep 1 # tail looks once a second
}

# SLURM fills in what follows a %, which a folder may hold.
submit=(sbatch --parsable --output="${job_folder//%/%%}/log.txt" "$job_folder/job.sbatch")

show_archive
show_file "$work/job.sbatch" "$job_folder/job.sbatch"
lay_out
if [[ -n $print ]]; then
  act "${submit[@]}"
  exit
fi
id=$("${submit[@]}") || die 1 "sbatch did not take the job"
id=${id%%;*} # JOB;CLUSTER where there are several
say "job $id; log: $job_folder/log.txt"
if [[ -z $follow ]]; then
  say "scancel $id lets it save and ends it; --follow would have shown its log"
  exit
fi
trap 'say "no longer following; the job goes on"; exit 130' INT
show_log
if [[ ! -s $job_folder/code ]]; then
  die 1 "job $id has ended without an exit code: cancelled, or its node was lost; see sacct -j $id"
fi
result=$(<"$job_folder/code")
say "exit code $result"
exit "$result"
