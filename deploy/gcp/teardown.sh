#!/usr/bin/env bash
# Removes what create_vm.sh has made for a settings file, by its label: VM, disks, account; the bucket,
# with all that is in it, only with --with-bucket. What VMs of other names use is kept.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/gcp/settings.sh
source "$HERE/settings.sh"

WITH_BUCKET=no

# remove_each KIND PLACE...: all instances or disks that carry the label.
remove_each() {
  local kind=$1 name zone found
  found=$(ask compute "$kind" list "--project=$PROJECT" "--filter=labels.$LABEL" \
    '--format=csv[no-heading](name,zone.basename())')
  while IFS=, read -r name zone; do
    [[ -n $name ]] || continue
    change compute "$kind" delete "$name" "--project=$PROJECT" "--zone=$zone"
  done <<<"$found"
}

# Sets OTHERS to the VMs of other names that work as this account, hence in this bucket.
find_others() {
  OTHERS=$(ask compute instances list "--project=$PROJECT" \
    "--filter=serviceAccounts.email=$ACCOUNT AND NOT labels.$LABEL" '--format=value(name)')
  OTHERS=${OTHERS//$'\n'/ }
}

remove_account() {
  local found
  if [[ -n $OTHERS ]]; then
    echo "account $ACCOUNT: kept, for other VMs work as it: $OTHERS"
    return
  fi
  found=$(ask iam service-accounts list "--project=$PROJECT" \
    "--filter=email=$ACCOUNT AND description='$LABEL'" '--format=value(email)')
  if [[ -z $found ]]; then
    echo "account $ACCOUNT: kept (it is not there, or was not made for $NAME)"
    return
  fi
  change storage buckets remove-iam-policy-binding "gs://$BUCKET" \
    "--member=serviceAccount:$ACCOUNT" --role=roles/storage.objectUser \
    || echo "the role on gs://$BUCKET is not there"
  change iam service-accounts delete "$ACCOUNT" "--project=$PROJECT"
}

remove_bucket() {
  local found
  found=$(ask storage buckets list "--project=$PROJECT" \
    "--filter=name=$BUCKET AND labels.$LABEL" '--format=value(name)')
  if [[ -z $found ]]; then
    echo "bucket $BUCKET: kept (it is not there, or create_vm.sh has not made it)"
  elif [[ $WITH_BUCKET == no ]]; then
    echo "bucket $BUCKET: kept, with all runs in it; --with-bucket removes it"
  elif [[ -n $OTHERS ]]; then
    echo "bucket $BUCKET: kept, for other VMs work in it: $OTHERS"
  else
    change storage rm --recursive "gs://$BUCKET"
  fi
}

main() {
  while [[ ${1:-} == --* ]]; do
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --with-bucket) WITH_BUCKET=yes ;;
      *) break ;;
    esac
    shift
  done
  one_file "[--dry-run] [--with-bucket] SETTINGS" "$@"
  command -v gcloud >/dev/null || die "gcloud: not found; install the Google Cloud CLI"
  remove_each instances
  remove_each disks
  find_others
  remove_account
  remove_bucket
}

main "$@"
