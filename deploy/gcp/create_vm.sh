#!/usr/bin/env bash
# Makes what the training of a settings file needs: bucket, account, VM. What is there already is kept;
# a VM that was stopped or taken away is started again, and goes on.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/gcp/settings.sh
source "$HERE/settings.sh"

ACCOUNT_IS_NEW=no

find_image() {
  IMAGE=$(ask compute images describe-from-family "$IMAGE_FAMILY" \
    "--project=$IMAGE_PROJECT" '--format=value(name)') \
    || die "IMAGE_FAMILY=$IMAGE_FAMILY: $IMAGE_PROJECT has no such images, or cannot be asked"
  [[ $OFFLINE == no ]] || IMAGE=NEWEST-OF-$IMAGE_FAMILY
  [[ -n $IMAGE ]] || die "IMAGE_FAMILY=$IMAGE_FAMILY: $IMAGE_PROJECT has no such images"
}

# The label of a bucket can only be set once it is there; one without it is somebody's own, and
# teardown.sh leaves it alone. It may belong to another project.
ensure_bucket() {
  local found
  found=$(ask storage buckets describe "gs://$BUCKET" '--format=csv[no-heading](name,labels.tagger)' \
    2>/dev/null) || found=''
  if [[ -n $found ]]; then
    echo "bucket $BUCKET: is there"
    [[ ${found#*,} == "$NAME" ]] || echo "bucket $BUCKET: was not made for $NAME, so teardown.sh keeps it \
(unless you label it: gcloud storage buckets update gs://$BUCKET --update-labels=$LABEL)"
    return
  fi
  # Each state that training replaces would be kept, and paid for, for a week.
  change storage buckets create "gs://$BUCKET" "--project=$PROJECT" "--location=${ZONE%-*}" \
    --uniform-bucket-level-access --public-access-prevention --soft-delete-duration=0 \
    || die "BUCKET=$BUCKET cannot be made: names are taken worldwide; choose another, or ask its owner"
  change storage buckets update "gs://$BUCKET" "--update-labels=$LABEL"
}

# repeated COMMAND...: what has just been made is not known everywhere at once.
repeated() {
  local _
  for _ in 1 2 3 4; do
    ! "$@" || return 0
    sleep "${TAGGER_RETRY_SECONDS:-10}"
  done
  "$@"
}

# Accounts carry no labels: the description stands for it. It may be that of several VMs.
ensure_account() {
  local found
  found=$(ask iam service-accounts list "--project=$PROJECT" "--filter=email=$ACCOUNT" \
    '--format=value(email)')
  if [[ -n $found ]]; then
    echo "account $ACCOUNT: is there"
  else
    change iam service-accounts create "$SERVICE_ACCOUNT" "--project=$PROJECT" \
      "--display-name=Trains taggers" "--description=$LABEL"
    ACCOUNT_IS_NEW=yes
  fi
  # Granted twice, it is granted.
  repeated change storage buckets add-iam-policy-binding "gs://$BUCKET" \
    "--member=serviceAccount:$ACCOUNT" --role=roles/storage.objectUser \
    || die "$ACCOUNT could not be given the role storage.objectUser on $BUCKET (tried 5 times)"
}

write_metadata() {
  METADATA=$(mktemp)
  trap 'rm -f "$METADATA"' EXIT
  local key
  for key in "${KEYS[@]}"; do printf '%s=%s\n' "$key" "${!key}"; done >"$METADATA"
  FILES="tagger-settings=$METADATA,startup-script=$HERE/startup.sh,shutdown-script=$HERE/shutdown.sh"
}

create_vm() {
  local options=() create=(change)
  [[ $ACCELERATOR == none ]] || options+=("--accelerator=type=${ACCELERATOR%:*},count=${ACCELERATOR#*:}")
  [[ $SPOT == no ]] || options+=(--provisioning-model=SPOT)
  [[ $ACCOUNT_IS_NEW == no ]] || create=(repeated change)
  # Should the VM's own watchdog fail, Google ends it an hour later. (Of no options bash 3 makes an
  # error, unless they are asked for like this.)
  "${create[@]}" compute instances create "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    "--machine-type=$MACHINE_TYPE" ${options[@]+"${options[@]}"} --maintenance-policy=TERMINATE \
    "--instance-termination-action=STOP" "--max-run-duration=$((MAX_HOURS + 1))h" \
    "--image=$IMAGE" "--image-project=$IMAGE_PROJECT" "--boot-disk-size=${DISK_GB}GB" \
    --boot-disk-type=pd-balanced --boot-disk-auto-delete \
    "--service-account=$ACCOUNT" --scopes=cloud-platform \
    "--labels=$LABEL" --metadata=enable-guest-attributes=TRUE "--metadata-from-file=$FILES"
  label_disk
}

label_disk() {
  change compute disks add-labels "$NAME" "--project=$PROJECT" "--zone=$ZONE" "--labels=$LABEL"
}

# The settings that this VM was started with last lie in its metadata.
read_made() {
  MADE=$(ask compute instances describe "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    '--format=value[](metadata.items.tagger-settings)')
  [[ $OFFLINE == yes || $(made NAME) == "$NAME" ]] \
    || die "VM $NAME: the settings that it was made with cannot be read from its metadata: remove it \
with teardown.sh first (the bucket keeps all runs)"
}

# made KEY: what it was started with last.
made() {
  [[ $MADE =~ (^|$'\n')$1=([^$'\n']*) ]] && echo "${BASH_REMATCH[2]}"
}

require_same_vm() {
  local key value
  for key in MACHINE_TYPE ACCELERATOR SPOT IMAGE_FAMILY IMAGE_PROJECT SERVICE_ACCOUNT; do
    value=$(made "$key") || continue
    [[ $value == "${!key}" ]] || die "VM $NAME: was made with $key=$value, which cannot be changed into \
${!key}: put it back, or remove the VM with teardown.sh first (the bucket keeps all runs)"
  done
}

# The system takes the new space at its next boot.
resize_disk() {
  local size
  size=$(ask compute disks describe "$NAME" "--project=$PROJECT" "--zone=$ZONE" '--format=value(sizeGb)')
  [[ $size =~ ^[0-9]+$ ]] || die "VM $NAME: the size of its disk is not known"
  ((DISK_GB >= size)) || die "VM $NAME: its disk has $size GB and cannot shrink to DISK_GB=$DISK_GB: \
put it back, or remove the VM with teardown.sh first (the bucket keeps all runs)"
  ((DISK_GB == size)) || change compute disks resize "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    "--size=${DISK_GB}GB"
}

# Older Cloud SDKs cannot change it: that keeps nobody from starting the VM.
set_run_limit() {
  [[ $(made MAX_HOURS) != "$MAX_HOURS" ]] || return 0
  change compute instances set-scheduling "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    "--instance-termination-action=STOP" "--max-run-duration=$((MAX_HOURS + 1))h" \
    || echo "warning: VM $NAME: Google goes on stopping it after the MAX_HOURS + 1 that it was made with; \
update the Cloud SDK, or remove the VM with teardown.sh first" >&2
}

start_again() {
  read_made
  require_same_vm
  resize_disk
  label_disk
  set_run_limit
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
    SUSPENDED) die "VM $NAME: is suspended; stop it first (gcloud compute instances stop)" ;;
    *) echo "VM $NAME: is there ($status); settings that have changed count from its next start" ;;
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
