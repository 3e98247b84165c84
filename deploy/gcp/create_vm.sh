#!/usr/bin/env bash
# Makes what the training of a settings file needs: bucket, account, VM. What is there already is kept;
# a VM that was stopped or taken away is started again, and goes on.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/gcp/settings.sh
source "$HERE/settings.sh"

find_image() {
  IMAGE=$(ask compute images describe-from-family "$IMAGE_FAMILY" \
    "--project=$IMAGE_PROJECT" '--format=value(name)') \
    || die "IMAGE_FAMILY=$IMAGE_FAMILY: $IMAGE_PROJECT has no such images, or cannot be asked"
  [[ $OFFLINE == no ]] || IMAGE=NEWEST-OF-$IMAGE_FAMILY
  [[ -n $IMAGE ]] || die "IMAGE_FAMILY=$IMAGE_FAMILY: $IMAGE_PROJECT has no such images"
}

# The label of a bucket can only be set once it is there; one without it is somebody's own, and
# teardown.sh leaves it alone.
ensure_bucket() {
  local found
  found=$(ask storage buckets list "--project=$PROJECT" "--filter=name=$BUCKET" '--format=value(name)')
  if [[ -n $found ]]; then
    echo "bucket $BUCKET: is there"
    return
  fi
  change storage buckets create "gs://$BUCKET" "--project=$PROJECT" "--location=${ZONE%-*}" \
    --uniform-bucket-level-access --public-access-prevention
  change storage buckets update "gs://$BUCKET" "--update-labels=$LABEL"
}

# Accounts carry no labels: the description stands for it.
ensure_account() {
  local found
  found=$(ask iam service-accounts list "--project=$PROJECT" "--filter=email=$ACCOUNT" \
    '--format=value(email)')
  if [[ -n $found ]]; then
    echo "account $ACCOUNT: is there"
  else
    change iam service-accounts create "$SERVICE_ACCOUNT" "--project=$PROJECT" \
      "--display-name=Trains taggers" "--description=$LABEL"
  fi
  # A new account is not known everywhere at once. Granted twice, it is granted.
  local attempt
  for attempt in 1 2 3 4 5; do
    change storage buckets add-iam-policy-binding "gs://$BUCKET" \
      "--member=serviceAccount:$ACCOUNT" --role=roles/storage.objectUser && return
    sleep "${TAGGER_RETRY_SECONDS:-10}"
  done
  die "$ACCOUNT could not be given the role storage.objectUser on $BUCKET (tried $attempt times)"
}

write_metadata() {
  METADATA=$(mktemp)
  trap 'rm -f "$METADATA"' EXIT
  local key
  for key in "${KEYS[@]}"; do printf '%s=%s\n' "$key" "${!key}"; done >"$METADATA"
  FILES="tagger-settings=$METADATA,startup-script=$HERE/startup.sh,shutdown-script=$HERE/shutdown.sh"
}

create_vm() {
  local options=()
  [[ $ACCELERATOR == none ]] || options+=("--accelerator=type=${ACCELERATOR%:*},count=${ACCELERATOR#*:}")
  [[ $SPOT == no ]] || options+=(--provisioning-model=SPOT)
  # Should the VM's own watchdog fail, Google ends it an hour later.
  change compute instances create "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    "--machine-type=$MACHINE_TYPE" "${options[@]}" --maintenance-policy=TERMINATE \
    "--instance-termination-action=STOP" "--max-run-duration=$((MAX_HOURS + 1))h" \
    "--image=$IMAGE" "--image-project=$IMAGE_PROJECT" "--boot-disk-size=${DISK_GB}GB" \
    --boot-disk-type=pd-balanced --boot-disk-auto-delete \
    "--service-account=$ACCOUNT" --scopes=cloud-platform \
    "--labels=$LABEL" --metadata=enable-guest-attributes=TRUE "--metadata-from-file=$FILES"
  change compute disks add-labels "$NAME" "--project=$PROJECT" "--zone=$ZONE" "--labels=$LABEL"
}

start_again() {
  change compute instances add-metadata "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    "--metadata-from-file=$FILES"
  change compute instances start "$NAME" "--project=$PROJECT" "--zone=$ZONE"
}

ensure_vm() {
  local found status label
  found=$(ask compute instances list "--project=$PROJECT" "--zones=$ZONE" "--filter=name=$NAME" \
    '--format=csv[no-heading](status,labels.tagger)')
  status=${found%%,*} label=${found#*,}
  if [[ -n $found && $label != "$NAME" ]]; then
    die "VM $NAME: is there, but without the label $LABEL; choose another NAME"
  fi
  case $status in
    '') create_vm ;;
    TERMINATED | STOPPED) start_again ;;
    STOPPING | SUSPENDING) die "VM $NAME: is stopping; try again in a minute" ;;
    *) echo "VM $NAME: is there ($status)" ;;
  esac
}

say_how_to_watch() {
  cat <<END
watch: gcloud compute instances tail-serial-port-output $NAME --project=$PROJECT --zone=$ZONE
state: gcloud storage cat $RUN_URI.vm/$NAME/status.json
model: $RUN_URI/bundle
END
}

main() {
  # A dry run asks nobody either: it takes everything for missing.
  if [[ ${1:-} == --dry-run ]]; then
    DRY_RUN=yes OFFLINE=yes
    shift
  fi
  one_file "[--dry-run] SETTINGS" "$@"
  [[ $OFFLINE == yes ]] || command -v gcloud >/dev/null \
    || die "gcloud: not found; install the Google Cloud CLI, or add --dry-run"
  find_image
  ensure_bucket
  ensure_account
  write_metadata
  ensure_vm
  say_how_to_watch
}

main "$@"
