#!/usr/bin/env bash
# Removes what create_vm.sh has made for a settings file, by its label: VM, disks, account; the bucket,
# with all runs in it, only with --with-bucket.
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

remove_account() {
  local found
  found=$(ask iam service-accounts list "--project=$PROJECT" \
    "--filter=email=$ACCOUNT AND description='$LABEL'" '--format=value(email)')
  [[ -n $found ]] || return 0
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
  remove_account
  remove_bucket
}

main "$@"
