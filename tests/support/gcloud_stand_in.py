"""Stands in for gcloud: a project in a folder, and nothing that gcloud would not understand.

Commands and options are those of Google's reference that deploy/gcp uses; others are refused, as a
misspelt one would be. What was made lies in files of ``$STAND_IN_STATE``.
"""

import os
import sys
from pathlib import Path

OPTIONS = {
    "auth configure-docker": "",
    "compute disks add-labels": "--labels --project --zone",
    "compute disks delete": "--project --zone",
    "compute disks describe": "--format --project --zone",
    "compute disks list": "--filter --format --project",
    "compute disks resize": "--project --size --zone",
    "compute images describe-from-family": "--format --project",
    "compute instances add-metadata": "--metadata-from-file --project --zone",
    "compute instances create": "--accelerator --boot-disk-auto-delete --boot-disk-size "
    "--boot-disk-type --image --image-project --instance-termination-action --labels "
    "--machine-type --maintenance-policy --max-run-duration --metadata --metadata-from-file "
    "--project --provisioning-model --scopes --service-account --zone",
    "compute instances delete": "--project --zone",
    "compute instances describe": "--format --project --zone",
    "compute instances list": "--filter --format --project --zones",
    "compute instances set-scheduling": "--instance-termination-action --max-run-duration "
    "--project --zone",
    "compute instances start": "--project --zone",
    "iam service-accounts create": "--description --display-name --project",
    "iam service-accounts delete": "--project",
    "iam service-accounts list": "--filter --format --project",
    "storage buckets add-iam-policy-binding": "--member --role",
    "storage buckets create": "--location --project --public-access-prevention "
    "--soft-delete-duration --uniform-bucket-level-access",
    "storage buckets describe": "--format",
    "storage buckets list": "--filter --format --project",
    "storage buckets remove-iam-policy-binding": "--member --role",
    "storage buckets update": "--update-labels",
    "storage cat": "",
    "storage rm": "--recursive",
}
STATE = Path(os.environ["STAND_IN_STATE"])


def fail(message):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(1)


def show(name, otherwise=""):
    path = STATE / name
    sys.stdout.write(path.read_text() if path.exists() else otherwise)


def main(arguments):
    words = [argument for argument in arguments if not argument.startswith("-")]
    given = dict(
        argument.partition("=")[::2] for argument in arguments if argument.startswith("--")
    )
    command = next((name for name in OPTIONS if words[: len(name.split())] == name.split()), None)
    if command is None:
        fail(f"no such command: {' '.join(words)}")
    for option in given:
        if option not in {"--quiet", *OPTIONS[command].split()}:
            fail(f"{command}: unrecognized arguments: {option}")
    answer(command, words[len(command.split()) :], given)


def answer(command, names, given):
    match command:
        case "compute images describe-from-family":
            if names != ["debian-12"]:
                fail("no such family")
            print("debian-12-bookworm-v20261110")
        case "storage buckets describe":
            if not (STATE / "made-bucket").exists():
                fail("not found: 404")
            label = "tagger-one" if (STATE / "bucket-label").exists() else ""
            print(f"bucket,{label}")
        case "storage buckets update":
            (STATE / "bucket-label").write_text(given["--update-labels"])
        case "storage buckets create":
            if (STATE / "no-bucket").exists():
                fail("HTTPError 409: the name is taken")
            (STATE / "made-bucket").write_text("bucket\n")
        case "storage buckets list":
            show("made-bucket")
        case "storage buckets add-iam-policy-binding":
            if (STATE / "no-binding").exists():
                fail("no such account")
        case "iam service-accounts create":
            (STATE / "made-account").write_text("tagger-trainer@example.com\n")
        case "iam service-accounts list":
            show("made-account")
        case "compute instances create":
            if (STATE / "account-unknown").exists():
                (STATE / "account-unknown").unlink()
                fail("the account is not found")
            (STATE / "made-vm").write_text("RUNNING,tagger-one\n")
            keep_settings(given)
            (STATE / "made-disk").write_text(given["--boot-disk-size"].removesuffix("GB") + "\n")
        case "compute instances add-metadata":
            keep_settings(given)
        case "compute instances set-scheduling":
            if (STATE / "no-scheduling").exists():
                fail("unrecognized arguments: --max-run-duration")
        case "compute instances start":
            (STATE / "made-vm").write_text("RUNNING,tagger-one\n")
        case "compute instances describe":
            show("vm-status" if "status" in given["--format"] else "made-settings")
        case "compute instances list":
            if given["--filter"].startswith("serviceAccounts"):
                show("other-vms")
            elif given["--filter"].startswith("labels"):
                print("tagger-one,us-central1-a" if (STATE / "made-vm").exists() else "")
            else:
                show("made-vm")
        case "compute instances delete":
            if (STATE / "no-delete").exists():
                fail("required 'compute.instances.delete' permission")
        case "compute disks list":
            print("tagger-one,us-central1-a" if (STATE / "made-vm").exists() else "")
        case "compute disks describe":
            show("made-disk")
        case "compute disks resize":
            (STATE / "made-disk").write_text(given["--size"].removesuffix("GB") + "\n")
        case "storage cat":
            show("status")


def keep_settings(given):
    files = dict(item.split("=", 1) for item in given["--metadata-from-file"].split(","))
    (STATE / "made-settings").write_text(Path(files["tagger-settings"]).read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
