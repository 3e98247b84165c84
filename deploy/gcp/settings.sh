# shellcheck shell=bash
# What create_vm.sh and teardown.sh share: reading and checking the settings, and calling gcloud.

# Letters in patterns are these, whatever the user's language.
export LC_ALL=C

KEYS=(PROJECT ZONE NAME BUCKET SERVICE_ACCOUNT MACHINE_TYPE ACCELERATOR IMAGE_FAMILY IMAGE_PROJECT
  DISK_GB SPOT MAX_HOURS AT_END REPOSITORY COMMIT CONTAINER CONFIG OVERRIDES DATA_URI CHECKSUMS STORE_URI
  RUN_URI)
MAY_BE_EMPTY=" CONTAINER OVERRIDES DATA_URI CHECKSUMS "
DRY_RUN=no
OFFLINE=no
PROBLEMS=0

die() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

problem() {
  printf 'error: %s: %s\n' "$SETTINGS_FILE" "$1" >&2
  PROBLEMS=$((PROBLEMS + 1))
}

# Reads KEY=VALUE lines into variables of these names; nothing is executed.
read_settings() {
  SETTINGS_FILE=$1
  [[ -f $SETTINGS_FILE && -r $SETTINGS_FILE ]] \
    || die "$SETTINGS_FILE: no such file; copy env.example and fill it in"
  local line key known=" ${KEYS[*]} "
  for key in "${KEYS[@]}"; do printf -v "$key" ''; done
  while IFS= read -r line || [[ -n $line ]]; do
    line=${line%$'\r'}
    [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
    key=${line%%=*}
    if [[ $line != *=* || $known != *" $key "* ]]; then
      problem "'$line' is no setting; see env.example"
    else
      printf -v "$key" '%s' "${line#*=}"
    fi
  done <"$SETTINGS_FILE"
}

# must KEY PATTERN MEANING: the whole value matches; an empty one only where that is allowed.
must() {
  local value=${!1}
  [[ -z $value && $MAY_BE_EMPTY == *" $1 "* ]] && return
  [[ $value =~ ^($2)$ ]] || problem "$1='$value' is not $3"
}

# require_apart KEY KEY: neither folder lies in the other one.
require_apart() {
  local one=${!1#magnatagatune:} other=${!2}
  if [[ -n $one && -n $other ]] && [[ $one/ == "$other/"* || $other/ == "$one/"* ]]; then
    problem "$1 and $2 lie in one another"
  fi
}

check_settings() {
  local name='[a-z]([-a-z0-9]{0,61}[a-z0-9])?'
  local object="gs://${BUCKET//./\\.}(/[A-Za-z0-9_][A-Za-z0-9._-]*)+"
  must PROJECT '[a-z][-a-z0-9]{4,28}[a-z0-9]' "the ID of a project"
  must ZONE '[a-z]+-[a-z]+[0-9]+-[a-z]' "a zone, e.g. us-central1-a"
  must NAME "$name" "a name of lower-case letters, digits and hyphens"
  must BUCKET '[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]' "the name of a bucket (without gs://)"
  must SERVICE_ACCOUNT '[a-z][-a-z0-9]{4,28}[a-z0-9]' "the name of an account (without @...)"
  must MACHINE_TYPE '[a-z][a-z0-9]*(-[a-z0-9]+)+' "a machine type, e.g. g2-standard-8"
  must ACCELERATOR 'none|[a-z][-a-z0-9]*:(1|2|4|8|16)' "TYPE:COUNT or none"
  must IMAGE_FAMILY "$name" "a family of images"
  must IMAGE_PROJECT '[a-z][-a-z0-9]{4,28}[a-z0-9]' "the ID of a project"
  must DISK_GB '[1-9][0-9]{1,4}' "a number of gigabytes from 10 to 99999"
  must SPOT 'yes|no' "yes or no"
  must MAX_HOURS '[1-9][0-9]{0,2}' "a number of hours from 1 to 999"
  must AT_END 'stop|delete' "stop or delete"
  must REPOSITORY 'https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)+' \
    "an https address without a password"
  must COMMIT '[0-9a-f]{40}' "a commit in full (git rev-parse HEAD)"
  must CONTAINER '[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}' "an image with its digest"
  must CONFIG '[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*\.yaml' \
    "a YAML file of the repository"
  # Quotes, dollars and the like have no business in it.
  must OVERRIDES '[a-z_.]+=[][A-Za-z0-9._:/,+-]+( [a-z_.]+=[][A-Za-z0-9._:/,+-]+)*' \
    "section.key=value, separated by blanks"
  must DATA_URI "$object|magnatagatune(:$object)?" "a folder in gs://$BUCKET, or magnatagatune"
  must CHECKSUMS "(gs|https)://[A-Za-z0-9._/-]+" "an address of a list of SHA-256"
  must STORE_URI "$object" "a folder in gs://$BUCKET"
  must RUN_URI "$object" "a folder in gs://$BUCKET"
  if [[ $MACHINE_TYPE =~ ^(a2-ultragpu|a3|a4|a4x|c4|c4a|c4d|g4|n4|x4)- ]]; then
    problem "MACHINE_TYPE=$MACHINE_TYPE has no balanced persistent disk, or local disks that a stop empties"
  fi
  if [[ " $OVERRIDES" =~ [[:space:]](data|store|run)\.root= ]]; then
    problem "OVERRIDES may not set roots: these are DATA_URI, STORE_URI and RUN_URI"
  fi
  require_apart STORE_URI RUN_URI
  require_apart DATA_URI RUN_URI
  require_apart DATA_URI STORE_URI
  [[ $COMMIT =~ ^0+$ ]] && problem "COMMIT is still that of env.example"
  ((PROBLEMS == 0)) || exit 2
  # shellcheck disable=SC2034,SC2153  # set by read_settings, used by those that source this file
  LABEL=tagger=$NAME
  # shellcheck disable=SC2034
  ACCOUNT=$SERVICE_ACCOUNT@$PROJECT.iam.gserviceaccount.com
}

# one_file USAGE ARGUMENT...: the settings file, which is all that is left of the arguments.
one_file() {
  if (($# != 2)) || [[ $2 == -* ]]; then die "usage: $(basename "$0") $1"; fi
  read_settings "$2"
  check_settings
}

# What changes something: shown, and run unless this is a dry run. It reads no input: that may be a
# list which the caller goes through.
change() {
  printf '+'
  printf ' %q' gcloud "$@"
  printf '\n'
  [[ $DRY_RUN == yes ]] || gcloud --quiet "$@" </dev/null
}

# What only asks; offline there is nothing.
ask() {
  [[ $OFFLINE == yes ]] || gcloud --quiet "$@" </dev/null
}
