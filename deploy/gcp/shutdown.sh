#!/usr/bin/env bash
# Runs when the VM is stopped or taken away, which leaves 30 s: training is asked to stop after the
# step that it is in, saves and uploads; startup.sh writes the status.
set -euo pipefail

ROOT=${TAGGER_ROOT:-/}
STATE=${ROOT%/}/run/tagger
METADATA_URL=${METADATA_URL:-http://metadata.google.internal/computeMetadata/v1}
SECONDS_LEFT=25

is_at_work() {
  [[ -e $STATE/main ]] && kill -0 "$(<"$STATE/main")" 2>/dev/null
}

reason() {
  local preempted
  preempted=$(curl --silent --fail --max-time 2 --header 'Metadata-Flavor: Google' \
    "$METADATA_URL/instance/preempted") || preempted=UNKNOWN
  if [[ $preempted == TRUE ]]; then
    echo preempted
  elif timeout 3 systemctl list-jobs --no-legend | grep --quiet 'reboot\.target .*start'; then
    # So does the driver's installer.
    echo rebooting
  else
    echo stopped
  fi
}

main() {
  is_at_work || exit 0
  local child asked='' deadline=$((SECONDS + SECONDS_LEFT))
  if [[ ! -e $STATE/stopping ]]; then
    # Whoever sees the file finds the reason in it.
    reason >"$STATE/stopping.new"
    mv "$STATE/stopping.new" "$STATE/stopping"
  else
    # The watchdog has asked already.
    asked=$(cat "$STATE/pid" 2>/dev/null || true)
  fi
  while is_at_work && ((SECONDS < deadline)); do
    child=$(cat "$STATE/pid" 2>/dev/null || true)
    # Once: at a second signal it would not save any more.
    if [[ -n $child && $child != "$asked" ]]; then
      kill -TERM "$child" 2>/dev/null || true
      asked=$child
    fi
    sleep 0.1
  done
  if is_at_work; then echo "the time is over before all was saved"; fi
}

main
