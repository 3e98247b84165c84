#!/usr/bin/env bash
# Runs as root at each boot of the VM: from nothing, or from where an earlier boot was stopped, to a
# trained model in the bucket. However it ends, the log and one status object lie in the bucket then
# (the status also in the VM's guest attributes), and the VM stops.
set -euo pipefail
export LC_ALL=C HOME="${HOME:-/root}"

ROOT=${TAGGER_ROOT:-/}
ROOT=${ROOT%/}
METADATA_URL=${METADATA_URL:-http://metadata.google.internal/computeMetadata/v1}
STORAGE_URL=${STORAGE_EMULATOR_HOST:-https://storage.googleapis.com}
DRIVER_URL=${DRIVER_URL:-https://storage.googleapis.com/compute-gpu-installation-us/installer/latest/cuda_installer.pyz}
BEAT_SECONDS=${BEAT_SECONDS:-60}
GRACE_SECONDS=${GRACE_SECONDS:-300}

STATE=$ROOT/run/tagger
WORK=$ROOT/var/lib/tagger
CODE=$ROOT/opt/tagger
BOOT=$(date -u +%Y%m%dT%H%M%SZ)
LOG=$WORK/log/$BOOT.txt
export TAGGER_CACHE=$WORK/cache

OUTCOME='' MESSAGE='' STEP='read the settings' FOLDER='' EXIT_CODE=0
EXIT_SOME_FAILED=1
EXIT_HELD=75
# Of training that has saved its state, or was stopped before there was one.
SAVED=" 0 130 143 "

say() {
  printf '%s %s\n' "$(date -u +%H:%M:%S)" "$1"
}

fail() {
  OUTCOME=${2:-failed} MESSAGE=$1
  say "error: $1"
  exit 1
}

# ---- metadata server and bucket -----------------------------------------------------------------

metadata() {
  curl --silent --show-error --fail --retry 5 --retry-connrefused --max-time 20 \
    --header 'Metadata-Flavor: Google' "$METADATA_URL/$1"
}

# upload FILE OBJECT: prints the server's code. Done with the token of the VM's account, which shows
# in no list of processes; the runtime with its own client may not be there yet.
upload() {
  local token
  token=$(metadata instance/service-accounts/default/token \
    | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p') || token=''
  curl --silent --show-error --retry 5 --retry-connrefused --max-time 120 \
    --config <(printf 'header = "Authorization: Bearer %s"\n' "$token") \
    --header 'Content-Type: text/plain' --data-binary "@$1" \
    --output /dev/null --write-out '%{http_code}' \
    "$STORAGE_URL/upload/storage/v1/b/$BUCKET/o?uploadType=media&name=$2" || true
}

# publish STATE MESSAGE: the status object; prints the bucket's answer.
publish() {
  local text=${2//[^[:print:]]/ }
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  printf '{"state": "%s", "step": "%s", "message": "%s", "run": "%s", "commit": "%s", "boot": "%s", "time": "%s"}\n' \
    "$1" "$STEP" "$text" "${RUN_URI:-}" "${COMMIT:-}" "$BOOT" "$(date -u +%FT%TZ)" >"$STATE/status.json"
  # These need no rights: they tell what went wrong where the bucket refuses.
  curl --silent --fail --max-time 10 --output /dev/null --request PUT \
    --header 'Metadata-Flavor: Google' --data-binary "@$STATE/status.json" \
    "$METADATA_URL/instance/guest-attributes/tagger/status" || true
  [[ -z $FOLDER ]] || upload "$STATE/status.json" "$FOLDER/status.json"
}

upload_log() {
  [[ -z $FOLDER ]] || upload "$LOG" "$FOLDER/log/$BOOT.txt"
}

# ---- how it ends ---------------------------------------------------------------------------------

# Whether shutdown.sh or the watchdog wants an end.
asked_to_stop() {
  [[ -e $STATE/stopping ]]
}

stop_vm() {
  sync
  if [[ ${AT_END:-stop} == delete ]]; then
    gcloud compute instances delete "$VM" "--zone=$ZONE" --quiet \
      || say "the VM cannot delete itself: it stops (see the roles in deploy/gcp/README.md)"
  fi
  shutdown -h now
}

explain_stop() {
  local saved="what was learned is saved"
  OUTCOME=$(<"$STATE/stopping")
  [[ $STEP != train || $SAVED == *" $EXIT_CODE "* ]] || saved="the last steps could not be saved ($(last_error))"
  if [[ $OUTCOME == timed_out ]]; then
    MESSAGE="MAX_HOURS=$MAX_HOURS are used up; $saved: raise it and start the VM again to go on"
  else
    MESSAGE="$saved; start the VM again to go on"
  fi
}

finish() {
  local code=$?
  trap - EXIT
  trap '' TERM INT
  # Nothing that fails from here on, such as a log on a full disk, may keep the VM running.
  set +e
  [[ -z ${WATCHDOG:-} ]] || kill "$WATCHDOG" 2>/dev/null || true
  if asked_to_stop && [[ $OUTCOME != finished ]]; then
    explain_stop
  elif [[ -z $OUTCOME ]]; then
    OUTCOME=failed MESSAGE="$STEP: $(last_error) (exit code $code)"
  fi
  [[ $OUTCOME != failed ]] || ! disk_is_full || MESSAGE="the disk is full, raise DISK_GB; $MESSAGE"
  say "$OUTCOME: $MESSAGE"
  upload_log >/dev/null
  publish "$OUTCOME" "$MESSAGE" >/dev/null
  # All is said: shutdown.sh need not wait.
  rm -f "$STATE/main"
  # A VM that is being taken away goes by itself.
  [[ $OUTCOME == preempted || $OUTCOME == stopped ]] || stop_vm
}

disk_is_full() {
  local kilobytes
  kilobytes=$(df --output=avail "$WORK" | tail -n 1)
  ((kilobytes < 1024))
}

last_error() {
  { grep --text '^error: ' "$LOG" || tail -n 1 "$LOG"; } | tail -n 1 | sed 's/^error: //'
}

# Runs beside all else: sends the log, counts the time of all boots, and ends what takes too long.
watch_over() {
  set +e
  local used=0
  [[ ! -e $WORK/seconds_used ]] || used=$(<"$WORK/seconds_used")
  while sleep "$BEAT_SECONDS"; do
    used=$((used + BEAT_SECONDS))
    echo "$used" >"$WORK/seconds_used"
    upload_log >/dev/null
    ((used >= MAX_HOURS * 3600)) && break
  done
  ask_to_stop timed_out
  sleep "$GRACE_SECONDS"
  # Still there: it hangs.
  EXIT_CODE=1
  explain_stop
  upload_log >/dev/null
  publish "$OUTCOME" "$MESSAGE" >/dev/null
  stop_vm
}

# stoppable COMMAND...: runs what takes long so that it can be asked to stop; returns its exit code.
stoppable() {
  ! asked_to_stop || exit 0
  setsid "$@" 8>&- &
  local child=$! code
  echo "$child" >"$STATE/pid"
  while true; do
    code=0
    # A signal to this script ends the waiting, not the command.
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  rm -f "$STATE/pid"
  # Helpers that it may have left.
  kill -KILL -- "-$child" 2>/dev/null || true
  EXIT_CODE=$code
  if asked_to_stop && ((code != 0)); then exit 0; fi
  return "$code"
}

begin() {
  STEP=$1
  say "$STEP"
  publish running "" >/dev/null
}

# ask_to_stop REASON: of this script, and of the command that it waits for. Only the first who asks
# sends a signal: at a second one training would not save any more.
ask_to_stop() {
  ! asked_to_stop || return 0
  # Whoever sees the file finds the reason in it.
  echo "$1" >"$STATE/stopping.$1"
  mv "$STATE/stopping.$1" "$STATE/stopping"
  [[ ! -e $STATE/pid ]] || kill -TERM "$(<"$STATE/pid")" 2>/dev/null || true
}

# ---- the way -------------------------------------------------------------------------------------

read_settings() {
  local line key
  if ! { VM=$(metadata instance/name) && ZONE=$(metadata instance/zone) && OWNER=$(metadata instance/id); }; then
    fail "the metadata server does not answer"
  fi
  ZONE=${ZONE##*/}
  metadata instance/attributes/tagger-settings >"$STATE/settings" \
    || fail "the VM has no attribute tagger-settings; make it with create_vm.sh"
  while IFS= read -r line; do
    key=${line%%=*}
    case $key in
      ACCELERATOR | MAX_HOURS | AT_END | REPOSITORY | COMMIT | CONTAINER | CONFIG | OVERRIDES | \
        DATA_URI | STORE_URI | RUN_URI) printf -v "$key" '%s' "${line#*=}" ;;
    esac
  done <"$STATE/settings"
  for key in ACCELERATOR MAX_HOURS AT_END COMMIT CONFIG STORE_URI RUN_URI; do
    [[ -n ${!key:-} ]] || fail "the VM's attribute tagger-settings lacks $key; make it with create_vm.sh"
  done
  BUCKET=${RUN_URI#gs://}
  # Beside the run: what lies in it is the run's.
  FOLDER=${BUCKET#*/}.vm/$VM
  BUCKET=${BUCKET%%/*}
}

require_bucket() {
  STEP="write to the bucket"
  local answer
  answer=$(publish running "")
  case $answer in
    200) ;;
    401 | 403) fail "gs://$BUCKET refuses this VM's account (missing permission): give it roles/storage.objectUser" ;;
    404) fail "gs://$BUCKET: no such bucket" ;;
    *) fail "gs://$BUCKET cannot be written (the server answers $answer)" ;;
  esac
}

has_gpu() {
  nvidia-smi --list-gpus
}

require_gpu() {
  STEP="look for the GPU"
  if [[ $ACCELERATOR == none ]] || has_gpu; then return; fi
  grep --quiet --no-messages 0x10de "$ROOT"/sys/bus/pci/devices/*/vendor \
    || fail "no GPU, though ACCELERATOR=$ACCELERATOR was asked for: the VM was made without one"
  begin "install the driver"
  curl --silent --show-error --fail --location --retry 5 --output "$WORK/driver.pyz" "$DRIVER_URL" \
    || fail "$DRIVER_URL: the driver's installer cannot be fetched"
  stoppable python3 "$WORK/driver.pyz" install_driver || fail "the driver cannot be installed"
  local _
  # It boots the VM anew where it has to, and then is called again.
  for _ in {1..60}; do
    ! asked_to_stop || exit 0
    if has_gpu; then return; fi
    sleep 1
  done
  fail "no GPU answers, though ACCELERATOR=$ACCELERATOR was asked for and its driver is installed"
}

install_packages() {
  if command -v git >/dev/null && python3 -c 'import ensurepip, venv'; then return; fi
  begin "install packages"
  stoppable apt-get update --quiet
  stoppable env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes git python3-venv
}

fetch_code() {
  begin "fetch the code"
  if [[ $(git -C "$CODE" rev-parse HEAD 2>/dev/null) != "$COMMIT" ]]; then
    git init --quiet "$CODE"
    stoppable git -C "$CODE" fetch --quiet --depth 1 "$REPOSITORY" "$COMMIT" \
      || fail "$REPOSITORY: has no commit $COMMIT, or cannot be read"
    git -C "$CODE" checkout --quiet --force --detach "$COMMIT"
  fi
  [[ -f $CODE/$CONFIG ]] || fail "CONFIG=$CONFIG: not in commit $COMMIT"
}

install_runtime() {
  local ready=.venv/ready packages=(--editable '.[cloud,train]')
  if [[ -e $ready && $(<"$ready") == "$COMMIT $ACCELERATOR" ]]; then return; fi
  begin "install the runtime"
  [[ $ACCELERATOR == none ]] || packages+=('tensorflow[and-cuda]')
  stoppable python3 -m venv .venv
  # As in the Makefile: uv takes these versions together, which pip refuses.
  stoppable "${PYTHON[@]}" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt uv
  stoppable "${PYTHON[@]}" -m uv pip install --quiet --python .venv/bin/python \
    --compile-bytecode --constraint constraints.txt "${packages[@]}"
  echo "$COMMIT $ACCELERATOR" >"$ready"
}

# Sets PYTHON, the command that runs the code's Python.
prepare_code() {
  if [[ -z ${CONTAINER:-} ]]; then
    install_packages
    fetch_code
    cd "$CODE"
    PYTHON=("$CODE/.venv/bin/python")
    install_runtime
    return
  fi
  begin "fetch the container"
  command -v docker >/dev/null || fail "CONTAINER needs docker: choose an IMAGE_FAMILY that has it"
  stoppable docker pull --quiet "$CONTAINER" || fail "$CONTAINER: cannot be fetched"
  # The image's user is not root (see ./Dockerfile).
  mkdir -p "$TAGGER_CACHE"
  chown 10001:10001 "$TAGGER_CACHE"
  local options=(--rm --network host --volume "$TAGGER_CACHE:$TAGGER_CACHE" --env TAGGER_CACHE)
  [[ $ACCELERATOR == none ]] || options+=(--gpus all)
  PYTHON=(docker run "${options[@]}" "$CONTAINER" python)
}

require_gpu_in_tensorflow() {
  STEP="look for the GPU"
  [[ $ACCELERATOR == none ]] && return
  stoppable "${PYTHON[@]}" -c 'import tagger.devices as d; raise SystemExit(d.find_device().kind != "GPU")' \
    || fail "TensorFlow sees no GPU, though ACCELERATOR=$ACCELERATOR was asked for: driver and CUDA do not fit"
}

# holding NAME MODULE ARGUMENT...: a step that only one VM at a time does for this run.
holding() {
  local code=0
  begin "$1"
  shift
  stoppable "${PYTHON[@]}" -m tagger.lease "$RUN_URI.vm/lease.json" "$VM ($OWNER)" \
    "${PYTHON[@]: -1}" -m "$@" || code=$?
  ((code != EXIT_HELD)) || fail "$(last_error)" refused
  return "$code"
}

# Sets DATA_URI to a folder of this VM, in which MagnaTagATune lies then. Where DATA_URI names a
# mirror after a colon, it comes from there.
fetch_magnatagatune() {
  local from=()
  [[ $DATA_URI != magnatagatune:* ]] || from=(--from "${DATA_URI#*:}")
  begin "fetch MagnaTagATune"
  # Containers see this folder too.
  DATA_URI=$TAGGER_CACHE/magnatagatune
  stoppable "${PYTHON[@]}" -m tagger fetch-magnatagatune "$DATA_URI" "${from[@]}"
}

work() {
  local options=(--config "$CONFIG" --set "store.root=$STORE_URI" --set "run.root=$RUN_URI")
  local change changes=() code=0
  read -r -a changes <<<"${OVERRIDES:-}"
  for change in "${changes[@]}"; do options+=(--set "$change"); done
  if [[ ${DATA_URI:-} == magnatagatune* ]]; then
    fetch_magnatagatune
  fi
  if [[ -n ${DATA_URI:-} ]]; then
    options+=(--set "data.root=$DATA_URI")
    holding preprocess preprocess "${options[@]}" || code=$?
    # Single clips that cannot be used stop nobody; they are in the log.
    ((code <= EXIT_SOME_FAILED)) || return "$code"
  fi
  holding train tagger.train "${options[@]}" --resume
}

main() {
  mkdir -p "$STATE" "$WORK/log"
  exec 8>"$STATE/lock"
  flock --nonblock 8 || { echo "already at work on this VM" && exit 0; }
  rm -f "$STATE/pid" "$STATE/stopping"
  echo $$ >"$STATE/main"
  # The log is a file, so that it is complete when it is sent; the serial port shows it as well.
  touch "$LOG"
  tail --follow "--pid=$$" "$LOG" 8>&- &
  exec >>"$LOG" 2>&1
  trap finish EXIT
  trap 'ask_to_stop stopped' TERM INT
  read_settings
  require_bucket
  watch_over 8>&- &
  WATCHDOG=$!
  require_gpu
  prepare_code
  require_gpu_in_tensorflow
  work
  OUTCOME=finished MESSAGE="the model is $RUN_URI/bundle"
}

main
