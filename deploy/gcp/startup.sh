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
# Google's installer of NVIDIA's driver, in this release.
DRIVER_INSTALLER=v1.9.1
DRIVER_URL=${DRIVER_URL:-https://github.com/GoogleCloudPlatform/compute-gpu-installation/releases/download/cuda-installer-$DRIVER_INSTALLER/cuda_installer.pyz}
BEAT_SECONDS=${BEAT_SECONDS:-60}
GRACE_SECONDS=${GRACE_SECONDS:-300}
# A right takes up to seven minutes from when it is given until it is known everywhere.
BUCKET_PATIENCE=${BUCKET_PATIENCE:-480}
# Between two attempts at what another one holds.
PAUSE_SECONDS=${PAUSE_SECONDS:-15}
# A VM that is being stopped is gone by then.
GONE_SECONDS=${GONE_SECONDS:-90}
REBOOT_SECONDS=${REBOOT_SECONDS:-600}

STATE=$ROOT/run/tagger
WORK=$ROOT/var/lib/tagger
CODE=$ROOT/opt/tagger
BOOT=$(date -u +%Y%m%dT%H%M%SZ)
LOG=$WORK/log/$BOOT.txt
export TAGGER_CACHE=$WORK/cache

OUTCOME='' MESSAGE='' STEP='' FOLDER='' EXIT_CODE=0 WATCHDOG=''
# Of one object that is sent, in seconds.
SENDING=120
EXIT_SOME_FAILED=1
EXIT_HELD=75
EXIT_LOST=76
# The user of the image (./Dockerfile), and the name that its container has here.
CONTAINER_USER=10001
CONTAINER_NAME=tagger
# There may be updates of the system at the same time, and a network that comes and goes.
APT=(env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes
  -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5)
DPKG=(env DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold)

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
    --retry-max-time "$SENDING" --header 'Metadata-Flavor: Google' "$METADATA_URL/$1"
}

# ask_bucket OPTION...: curl with the token of the VM's account, which shows in no list of processes;
# the runtime with its own client may not be there yet.
ask_bucket() {
  local token
  token=$(metadata instance/service-accounts/default/token \
    | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p') || token=''
  curl --silent --show-error --retry 5 --retry-connrefused \
    --max-time "$SENDING" --retry-max-time "$SENDING" \
    --config <(printf 'header = "Authorization: Bearer %s"\n' "$token") "$@"
}

# upload FILE OBJECT: prints the server's code.
upload() {
  ask_bucket --header 'Content-Type: text/plain' --data-binary "@$1" \
    --output /dev/null --write-out '%{http_code}' \
    "$STORAGE_URL/upload/storage/v1/b/$BUCKET/o?uploadType=media&name=$2" || true
}

# Whether this object is in the bucket.
is_in_bucket() {
  ask_bucket --fail --output /dev/null "$STORAGE_URL/storage/v1/b/$BUCKET/o/${1//\//%2F}"
}

# publish STATE MESSAGE: the status object; prints the bucket's answer.
publish() {
  local text=${2//[^[:print:]]/ }
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  printf '{"state": "%s", "step": "%s", "message": "%s", "run": "%s", "commit": "%s", "container": "%s", "boot": "%s", "time": "%s"}\n' \
    "$1" "$STEP" "$text" "${RUN_URI:-}" "${COMMIT:-}" "${CONTAINER:-}" "$BOOT" "$(date -u +%FT%TZ)" \
    >"$STATE/status.json"
  # These need no rights: they tell what went wrong where the bucket refuses.
  curl --silent --fail --max-time 10 --output /dev/null --request PUT \
    --header 'Metadata-Flavor: Google' --data-binary "@$STATE/status.json" \
    "$METADATA_URL/instance/guest-attributes/tagger/status" || true
  [[ -z $FOLDER ]] || upload "$STATE/status.json" "$FOLDER/status.json"
}

upload_log() {
  [[ -z $FOLDER ]] || upload "$LOG" "$FOLDER/log/$BOOT.txt"
}

# step NAME: what is done from here on; the watchdog reads it too.
step() {
  STEP=$1
  echo "$STEP" >"$STATE/step"
}

begin() {
  step "$1"
  say "$STEP"
  publish running "" >/dev/null
}

# ---- how it ends ---------------------------------------------------------------------------------

# Whether shutdown.sh or the watchdog wants an end.
asked_to_stop() {
  [[ -e $STATE/stopping ]]
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

stop_vm() {
  sync
  shutdown -h now
}

delete_vm() {
  gcloud compute instances delete "$VM" "--zone=$ZONE" --quiet \
    || say "the VM cannot delete itself: it stops (see the roles in deploy/gcp/README.md)"
  stop_vm
}

# What ran the shutdown script may have been no end of the VM (an update of Google's agent runs it).
stop_vm_if_it_stays() {
  trap - TERM INT
  if [[ $OUTCOME == rebooting ]]; then
    # Units may take their time to stop, and a halt now would overtake the boot.
    sleep "$REBOOT_SECONDS"
    [[ -e $STATE/main ]] || shutdown -r now
    return
  fi
  sleep "$GONE_SECONDS"
  # There, this script is at work once more.
  [[ -e $STATE/main ]] || stop_vm
}

# Whether training has saved its state, or was stopped before there was one. It catches the first
# signal, and says so: one that died of a signal after that was in the middle of it.
training_saved() {
  case $EXIT_CODE in
    0 | 130) ;;
    143) ! grep --quiet --text 'finishing this step' "$LOG" ;;
    *) return 1 ;;
  esac
}

explain_stop() {
  local saved="what was learned is saved"
  OUTCOME=$(<"$STATE/stopping")
  [[ $STEP != train ]] || training_saved || saved="the last steps could not be saved ($(last_error))"
  case $OUTCOME in
    timed_out) MESSAGE="MAX_HOURS=$MAX_HOURS are used up; $saved: raise it and start the VM again to go on" ;;
    rebooting) MESSAGE="the VM boots anew and goes on by itself" ;;
    *) MESSAGE="$saved; start the VM again to go on" ;;
  esac
}

# conclude CODE: sets OUTCOME and MESSAGE.
conclude() {
  if asked_to_stop && [[ $OUTCOME != finished ]]; then
    # It has seconds left.
    SENDING=6
    explain_stop
  elif [[ -z $OUTCOME && $1 == 137 ]]; then
    OUTCOME=failed MESSAGE="$STEP: killed by the system, as a rule for lack of memory; take a larger MACHINE_TYPE"
  elif [[ -z $OUTCOME ]]; then
    OUTCOME=failed MESSAGE="$STEP: $(last_error) (exit code $1)"
  fi
  [[ $OUTCOME != failed ]] || ! disk_is_full || MESSAGE="the disk is full, raise DISK_GB; $MESSAGE"
  case ${AT_END:-stop}:$OUTCOME in
    delete:failed | delete:lost | delete:timed_out)
      MESSAGE="$MESSAGE (the VM is not deleted: its disk may hold what the bucket lacks)"
      ;;
  esac
}

finish() {
  local code=$? answers
  trap - EXIT
  trap '' TERM INT
  # Nothing that fails from here on, such as a log on a full disk, may keep the VM running.
  set +e
  stop_watchdog
  conclude "$code"
  say "$OUTCOME: $MESSAGE"
  answers=$(upload_log; publish "$OUTCOME" "$MESSAGE")
  # All is said: shutdown.sh need not wait.
  rm -f "$STATE/main"
  case $OUTCOME in
    preempted | stopped | rebooting) stop_vm_if_it_stays 8>&- & ;;
    finished | refused)
      if [[ ${AT_END:-stop} == stop ]]; then
        stop_vm
      elif [[ $answers == 200200 ]]; then
        delete_vm
      else
        MESSAGE="$MESSAGE (the VM is not deleted: the bucket did not take log and status)"
        say "$MESSAGE"
        publish "$OUTCOME" "$MESSAGE" >/dev/null
        stop_vm
      fi
      ;;
    *) stop_vm ;;
  esac
}

disk_is_full() {
  local kilobytes
  kilobytes=$(df --output=avail "$WORK" | tail -n 1)
  ((kilobytes < 1024))
}

last_error() {
  { grep --text '^error: ' "$LOG" || tail -n 1 "$LOG"; } | tail -n 1 | sed 's/^error: //'
}

# ---- the watchdog --------------------------------------------------------------------------------

# Runs beside all else: sends the log, counts the time of all boots, and ends what takes too long.
watch_over() {
  set +e
  local used=0
  [[ ! -e $WORK/seconds_used ]] || used=$(<"$WORK/seconds_used")
  while sleep "$BEAT_SECONDS"; do
    used=$((used + BEAT_SECONDS))
    # On a full disk, or when the power goes, the old number stays.
    echo "$used" >"$WORK/seconds_used.new" && mv "$WORK/seconds_used.new" "$WORK/seconds_used"
    upload_log >/dev/null
    ((used >= MAX_HOURS * 3600)) && break
  done
  ask_to_stop timed_out
  sleep "$GRACE_SECONDS"
  # Still there: it hangs.
  EXIT_CODE=1 STEP=$(<"$STATE/step")
  explain_stop
  say "$OUTCOME: $MESSAGE"
  upload_log >/dev/null
  publish "$OUTCOME" "$MESSAGE" >/dev/null
  stop_vm
}

start_watchdog() {
  # In a group of its own, so that what it is sending can be ended with it.
  set -m
  watch_over 8>&- &
  WATCHDOG=$!
  set +m
}

# The log that it is sending must not arrive after the last one.
stop_watchdog() {
  [[ -n $WATCHDOG ]] || return 0
  kill -KILL -- "-$WATCHDOG"
  wait "$WATCHDOG"
} 2>/dev/null

# ---- running what takes long ---------------------------------------------------------------------

# pause SECONDS
pause() {
  local until=$((SECONDS + $1))
  while ((SECONDS < until)); do
    ! asked_to_stop || exit 0
    sleep 0.5
  done
}

# stoppable COMMAND...: which saves what it has when it is asked to stop; returns its exit code.
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
  [[ -z ${CONTAINER:-} ]] || ((code < 125)) || docker kill "$CONTAINER_NAME" >/dev/null 2>&1 || true
  EXIT_CODE=$code
  if asked_to_stop && ((code != 0)); then exit 0; fi
  return "$code"
}

# installing COMMAND...: is not waited for when an end is wanted, and is sent no signal: the more of
# a package it gets done until the VM is off, the less is half done.
installing() {
  ! asked_to_stop || exit 0
  setsid "$@" 8>&- &
  local child=$!
  while kill -0 "$child" 2>/dev/null; do
    ! asked_to_stop || exit 0
    sleep 0.1
  done
  wait "$child"
}

# holding ADDRESS MODULE ARGUMENT...: what only one VM at a time does; returns EXIT_HELD where another
# one does it.
holding() {
  local address=$1 code=0
  shift
  stoppable "${PYTHON[@]}" -m tagger.cloud.lease "$address" "$VM ($OWNER)" \
    "${PYTHON[@]: -1}" -m "$@" || code=$?
  ((code != EXIT_LOST)) || fail "$address: another VM has taken it over, as if this one had gone" lost
  return "$code"
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
        DATA_URI | CHECKSUMS | STORE_URI | RUN_URI) printf -v "$key" '%s' "${line#*=}" ;;
    esac
  done <"$STATE/settings"
  for key in ACCELERATOR MAX_HOURS AT_END COMMIT CONFIG STORE_URI RUN_URI; do
    [[ -n ${!key:-} ]] || fail "the VM's attribute tagger-settings lacks $key; make it with create_vm.sh"
  done
  # It is the image that says which code it holds.
  [[ -z ${CONTAINER:-} ]] || COMMIT=''
  BUCKET=${RUN_URI#gs://}
  # Beside the run: what lies in it is the run's.
  FOLDER=${BUCKET#*/}.vm/$VM
  BUCKET=${BUCKET%%/*}
}

require_bucket() {
  step "write to the bucket"
  local answer until=$((SECONDS + BUCKET_PATIENCE))
  while true; do
    answer=$(publish running "")
    case $answer in
      200) return ;;
      401 | 403)
        ((SECONDS < until)) \
          || fail "gs://$BUCKET refuses this VM's account (missing permission): give it roles/storage.objectUser"
        say "gs://$BUCKET refuses this VM's account; its role may not be known everywhere yet"
        pause "$PAUSE_SECONDS"
        ;;
      404) fail "gs://$BUCKET: no such bucket" ;;
      *) fail "gs://$BUCKET cannot be written (the server answers $answer)" ;;
    esac
  done
}

# mend_packages: those that were being installed when the VM was taken away. Before packages are
# installed, and at the next boot where that has not come to its end.
mend_packages() {
  command -v dpkg >/dev/null || return 0
  begin "look after the packages"
  touch "$WORK/installs_packages"
  sync
  local until=$((SECONDS + 600))
  # It has no patience with who else is installing.
  until installing "${DPKG[@]}" --configure -a || ((SECONDS >= until)); do
    pause "$PAUSE_SECONDS"
  done
  installing "${APT[@]}" --fix-broken install
}

has_gpu() {
  nvidia-smi --list-gpus
}

require_gpu() {
  step "look for the GPU"
  if [[ $ACCELERATOR == none ]] || has_gpu; then return; fi
  grep --quiet --no-messages 0x10de "$ROOT"/sys/bus/pci/devices/*/vendor \
    || fail "no GPU, though ACCELERATOR=$ACCELERATOR was asked for: the VM was made without one"
  mend_packages
  begin "install the driver"
  curl --silent --show-error --fail --location --retry 5 --output "$WORK/driver.pyz" "$DRIVER_URL" \
    || fail "$DRIVER_URL: the driver's installer cannot be fetched"
  installing python3 "$WORK/driver.pyz" install_driver || fail "the driver cannot be installed"
  local _
  # It boots the VM anew where it has to, and then is called again.
  for _ in {1..120}; do
    if has_gpu; then return; fi
    pause 1
  done
  fail "no GPU answers, though ACCELERATOR=$ACCELERATOR was asked for and its driver is installed"
}

install_packages() {
  if command -v git >/dev/null && python3 -c 'import ensurepip, venv'; then return; fi
  mend_packages
  begin "install packages"
  installing "${APT[@]}" update
  installing "${APT[@]}" install git python3-venv
}

fetch_code() {
  local whole=$CODE/.git/tagger_whole
  begin "fetch the code"
  if [[ ! -e $whole || $(<"$whole") != "$COMMIT" ]]; then
    # Whatever another boot has left half done, git's locks among it.
    rm -rf "$CODE"
    git init --quiet "$CODE"
    installing git -C "$CODE" fetch --quiet --depth 1 "$REPOSITORY" "$COMMIT" \
      || fail "$REPOSITORY: has no commit $COMMIT, or cannot be read"
    git -C "$CODE" checkout --quiet --force --detach "$COMMIT"
    sync
    echo "$COMMIT" >"$whole"
  fi
  [[ -f $CODE/$CONFIG ]] || fail "CONFIG=$CONFIG: not in commit $COMMIT"
}

install_runtime() {
  local ready=.venv/ready packages=(--constraint constraints.txt --editable '.[cloud,train]')
  if [[ -e $ready && $(<"$ready") == "$COMMIT $ACCELERATOR" ]]; then return; fi
  begin "install the runtime"
  [[ $ACCELERATOR == none ]] \
    || packages=(--constraint deploy/gcp/constraints-gpu.txt "${packages[@]}" 'tensorflow[and-cuda]')
  # What is half there counts as installed.
  installing python3 -m venv --clear .venv
  # As in the Makefile: uv takes these versions together, which pip refuses.
  installing "${PYTHON[@]}" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt uv
  installing "${PYTHON[@]}" -m uv pip install --quiet --no-cache --python .venv/bin/python \
    --compile-bytecode "${packages[@]}"
  sync
  echo "$COMMIT $ACCELERATOR" >"$ready"
}

# Sets PYTHON, the command that runs the code's Python.
prepare_code() {
  if [[ -n ${CONTAINER:-} ]]; then
    prepare_container
  else
    install_packages
    fetch_code
    cd "$CODE"
    PYTHON=("$CODE/.venv/bin/python")
    install_runtime
  fi
  rm -f "$WORK/installs_packages"
}

prepare_container() {
  local registry=${CONTAINER%%/*}
  begin "fetch the container"
  command -v docker >/dev/null || fail "CONTAINER needs docker: choose an IMAGE_FAMILY that has it"
  if [[ $registry == *-docker.pkg.dev || $registry == gcr.io || $registry == *.gcr.io ]]; then
    installing gcloud auth configure-docker "$registry" --quiet \
      || say "gcloud cannot give docker the account's rights: only public images can be fetched"
  fi
  installing docker pull --quiet "$CONTAINER" || fail "$CONTAINER: cannot be fetched"
  save_before_docker_ends
  # Of a boot that was cut off.
  docker rm --force "$CONTAINER_NAME" >/dev/null 2>&1 || true
  # The image's user is not root; files of a boot without CONTAINER may be.
  mkdir -p "$TAGGER_CACHE"
  chown -R "$CONTAINER_USER:$CONTAINER_USER" "$TAGGER_CACHE"
  # With --init signals reach a Python that has no handlers yet.
  local options=(--rm --init --name "$CONTAINER_NAME" --network host
    --volume "$TAGGER_CACHE:$TAGGER_CACHE" --env TAGGER_CACHE)
  [[ $ACCELERATOR == none ]] || options+=(--gpus all)
  PYTHON=(docker run "${options[@]}" "$CONTAINER" python)
}

# Of two services that nobody has ordered both are stopped at once: docker must stay until shutdown.sh
# has run.
save_before_docker_ends() {
  local folder=$ROOT/etc/systemd/system/google-shutdown-scripts.service.d
  if ! { mkdir -p "$folder" && printf '[Unit]\nAfter=docker.service\n' >"$folder/tagger.conf" \
    && systemctl daemon-reload; }; then
    say "docker may be stopped before training has saved"
  fi
}

require_gpu_in_tensorflow() {
  step "look for the GPU"
  [[ $ACCELERATOR == none ]] && return
  stoppable "${PYTHON[@]}" -c 'import tagger.network.devices as d; raise SystemExit(d.find_device().kind != "GPU")' \
    || fail "TensorFlow sees no GPU, though ACCELERATOR=$ACCELERATOR was asked for: driver and CUDA do not fit"
}

# Sets DATA_URI to a folder of this VM, in which MagnaTagATune lies then. Where DATA_URI names a
# mirror after a colon, it comes from there.
fetch_magnatagatune() {
  local from=()
  [[ $DATA_URI != magnatagatune:* ]] || from=(--from "${DATA_URI#*:}")
  [[ -z ${CHECKSUMS:-} ]] || from+=(--checksums "$CHECKSUMS")
  begin "fetch MagnaTagATune"
  # Containers see this folder too.
  DATA_URI=$TAGGER_CACHE/magnatagatune
  stoppable "${PYTHON[@]}" -m tagger fetch-magnatagatune "$DATA_URI" "${from[@]}"
}

# fill_store OPTION...: after whoever else fills it. Experiments share a store, and only its lease
# tells them of each other.
fill_store() {
  local code
  while true; do
    code=0
    begin "preprocess"
    holding "$STORE_URI.vm/lease.json" preprocess "$@" --set "data.root=$DATA_URI" || code=$?
    ((code == EXIT_HELD)) || break
    publish waiting "another VM fills this store: $(last_error)" >/dev/null
    pause "$PAUSE_SECONDS"
  done
  # Single clips that cannot be used stop nobody; they are in the log. Python has this code for what
  # went wrong in itself, too: then there is no summary.
  ((code == EXIT_SOME_FAILED)) \
    && grep --quiet --text ' clips (.*), [1-9][0-9]* failed$' <<<"$(tail -n 20 "$LOG")" \
    && return
  return "$code"
}

work() {
  local options=(--config "$CONFIG") change changes=() code=0
  read -r -a changes <<<"${OVERRIDES:-}"
  for change in "${changes[@]}"; do options+=(--set "$change"); done
  # These last: they are what the leases are for.
  options+=(--set "store.root=$STORE_URI" --set "run.root=$RUN_URI")
  if [[ ${DATA_URI:-} == magnatagatune* ]]; then
    fetch_magnatagatune
  fi
  if [[ -n ${DATA_URI:-} ]]; then
    fill_store "${options[@]}"
  fi
  begin "train"
  holding "$RUN_URI.vm/lease.json" tagger.train "${options[@]}" --resume || code=$?
  ((code != EXIT_HELD)) || fail "$(last_error)" refused
  return "$code"
}

require_bundle() {
  is_in_bucket "${RUN_URI#"gs://$BUCKET/"}/bundle/bundle.json" \
    || fail "training has ended, but $RUN_URI/bundle/bundle.json cannot be found in the bucket"
  OUTCOME=finished MESSAGE="the model is $RUN_URI/bundle"
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
  step "read the settings"
  read_settings
  require_bucket
  start_watchdog
  [[ ! -e $WORK/installs_packages ]] || mend_packages
  require_gpu
  prepare_code
  require_gpu_in_tensorflow
  work
  require_bundle
}

main
