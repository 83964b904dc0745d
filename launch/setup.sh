# shellcheck shell=bash
# Sourced by run.sh and test.sh: makes the virtual environment .venv, once, with exactly the
# packages of the lock files. Works on Linux and macOS with nothing but Python.
#
#   PYTHON=...       interpreter to use, instead of the first fit one of those below
#   ACCELERATOR=...  cpu, cuda or tpu, instead of what the machine is found to have

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
parity_venv=$root/.venv-parity

say() { printf 'launch: %s\n' "$*" >&2; }

# Exit code 2 means a mistake that a second start would meet again; 1 one that may pass.
die() {
  say "${@:2}"
  exit "$1"
}

# Debian's python3 comes without ensurepip, so that the version alone does not say it can be used.
is_fit() { # PYTHON NEWEST_MINOR
  "$1" -I -c '
import ensurepip, sys, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, int(sys.argv[1])))' "$2" >/dev/null 2>&1
}

find_python() {
  local names=(python3.11 python3.12 python3.13 python3) name newest
  if [[ -n ${PYTHON:-} ]]; then
    names=("$PYTHON")
  fi
  for newest in 13 99; do
    for name in "${names[@]}"; do
      if is_fit "$name" "$newest"; then
        printf '%s\n' "$name"
        return
      fi
    done
  done
  die 2 "no usable Python: tried ${names[*]}; needed is Python 3.11, 3.12 or 3.13 with its venv" \
    "module (on Debian and Ubuntu: apt-get install python3 python3-venv)"
}

# The PCI identity by which JAX itself looks for TPU chips (vendor Google, v2 to 7x).
has_tpu() {
  local device
  for device in /sys/bus/pci/devices/*; do
    if [[ -r $device/vendor && $(<"$device/vendor") == 0x1ae0 ]]; then
      case $(<"$device/device") in
        0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;;
      esac
    fi
  done
  return 1
}

find_accelerator() {
  case ${ACCELERATOR:-} in
    cpu | cuda | tpu) printf '%s\n' "$ACCELERATOR" ;;
    '')
      if has_tpu; then
        echo tpu
      elif nvidia-smi -L >/dev/null 2>&1; then
        echo cuda
      else
        echo cpu
      fi
      ;;
    *) die 2 "ACCELERATOR='$ACCELERATOR' is not one of cpu, cuda, tpu" ;;
  esac
}

# A training step on a CPU takes hundreds of megabytes from the C library. By default they go back
# to the system after every step, and are faulted in page by page in the next: up to a quarter of
# its time.
keep_memory() {
  export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX-1}
  export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_-0}
  export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_-1099511627776}
}

# What an environment must have been made from to be used as it is.
fingerprint() { # PYTHON FILE...
  "$1" -I -S -c '
import hashlib, sys
text = b"".join(open(name, "rb").read() for name in sys.argv[1:])
print("python%d.%d" % sys.version_info[:2], hashlib.sha256(text).hexdigest())' "${@:2}" 2>/dev/null
}

is_made() { # VENV STAMP FILE...
  local python=${PYTHON:-$1/bin/python}
  [[ -x $1/bin/python && -s $1/$2 ]] && [[ $(<"$1/$2") == "$(fingerprint "$python" "${@:3}")" ]]
}

# Two starts at once would install over each other. The lock is that of the open file 9, which the
# installing processes inherit: it holds until the last of them is gone, even if this shell is killed.
lock() { # PYTHON
  exec 9>>"$root/.venv.lock"
  "$1" -I -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("launch: waiting for another start that is installing", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)'
}

unlock() { exec 9>&-; }

# The lines of pip, as one line that changes in a terminal and as nothing in a log file.
show_progress() {
  local line count=0
  while IFS= read -r line; do
    case $line in
      Collecting\ * | Processing\ *)
        count=$((count + 1))
        if [[ -t 2 ]]; then printf '\r\033[K  fetching %d: %.60s' "$count" "${line#* }" >&2; fi
        ;;
      Installing\ collected\ *)
        if [[ -t 2 ]]; then printf '\r\033[K  unpacking %d packages' "$count" >&2; fi
        ;;
    esac
  done
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

install_into() { # VENV PIP_ARGUMENT...
  local log=$1/install.log
  if ! "$venv/bin/python" -m pip --python "$1/bin/python" install --disable-pip-version-check \
    --progress-bar off "${@:2}" 2>&1 | tee "$log" | show_progress; then
    tail -n 15 "$log" >&2
    die 1 "pip could not install the packages; all it said is in $log; the next start tries again"
  fi
}

site_packages() { # VENV
  "$1/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

# An environment is stamped when it is complete and made anew when its stamp does not fit: what a
# kill in the middle of an install left behind is never built upon.
make_venv() { # PYTHON ACCELERATOR FILE...
  local python=$1 accelerator=$2 file
  local requirements=()
  for file in "${@:3}"; do requirements+=(-r "$file"); done
  if [[ ! -e $venv/made-by-launch && -n $(ls -A "$venv" 2>/dev/null) ]]; then
    die 2 "$venv was not made by these scripts and is left alone; remove it to have it made"
  fi
  say "installing into .venv: about 1.4 GB, a few minutes, this once ($accelerator)"
  mkdir -p "$venv"
  touch "$venv/made-by-launch" # outlives the clearing, so that a kill during it is recovered from
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name made-by-launch -exec rm -rf {} +
  "$python" -m venv "$venv"
  # The lock files list everything, so there is nothing for pip to choose.
  install_into "$venv" --no-deps "${requirements[@]}"
  echo ../../../.. >"$(site_packages "$venv")/mobilebert_jax.pth"
  # What serves an accelerator serves its host alone too, as on the login node of a cluster.
  fingerprint "$venv/bin/python" "$3" >"$venv/stamp-cpu"
  fingerprint "$venv/bin/python" "${@:3}" >"$venv/stamp-$accelerator"
}

ensure_venv() {
  local accelerator python
  accelerator=$(find_accelerator)
  local files=("$root/requirements.txt")
  if [[ $accelerator != cpu ]]; then
    files+=("$root/requirements-$accelerator.txt")
  fi
  if is_made "$venv" "stamp-$accelerator" "${files[@]}"; then
    return
  fi
  python=$(find_python)
  lock "$python"
  if ! is_made "$venv" "stamp-$accelerator" "${files[@]}"; then
    make_venv "$python" "$accelerator" "${files[@]}"
  fi
  unlock
}

# torch and transformers serve comparisons only: they live in an environment of their own that sees
# .venv's packages below, so that .venv stays what a user has. What exports take is there too.
ensure_parity_venv() {
  local files=("$root/requirements.txt" "$root/requirements-parity.txt") packages
  files+=("$root/requirements-export.txt")
  lock "$venv/bin/python"
  if ! is_made "$parity_venv" stamp "${files[@]}"; then
    say "installing into .venv-parity: about 1.5 GB, this once"
    rm -rf "$parity_venv"
    "$venv/bin/python" -m venv --without-pip "$parity_venv"
    packages=$(site_packages "$parity_venv")
    printf '%s\n' "../../../../.venv/lib/${packages#"$parity_venv/lib/"}" ../../../.. \
      >"$packages/mobilebert_jax.pth"
    install_into "$parity_venv" -c "${files[0]}" -r "${files[1]}"
    install_into "$parity_venv" --no-deps -r "${files[2]}"
    fingerprint "$parity_venv/bin/python" "${files[@]}" >"$parity_venv/stamp"
  fi
  unlock
}
