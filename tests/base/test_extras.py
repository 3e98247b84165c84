"""Promises of a light installation: what it lacks is named, and it suffices for tagging."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_bundle import make_bundle, small_model
from small_store import make_store, small_config

from tagger.base import extras
from tagger.base.extras import EXTRAS, MissingExtraError, explain, install_command

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages that are imported under another name than that of their distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "google-cloud-storage",
    "sklearn": "scikit-learn",
    "upath": "universal-pathlib",
    "xgboost": "xgboost-cpu",
    "yaml": "pyyaml",
}


def distribution_names(requirements):
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution_of(package):
    return normal(DISTRIBUTIONS.get(package, package))


BASE = distribution_names(PROJECT["dependencies"])


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_an_extra_brings_the_package_that_it_is_named_for(package, extra):
    brought = distribution_names(PROJECT["optional-dependencies"][extra])
    assert distribution_of(package) in brought
    assert distribution_of(package) not in BASE


def test_the_extra_all_brings_every_extra_but_that_of_dataflow():
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.search(r"\[(.*)\]", everything)[1].split(","))
    assert named == extras.keys() - {"all", "dataflow", "dev"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [("tensorflow", "train"), ("google.cloud.storage", "cloud"), ("scipy.fft", "train")],
)
def test_a_missing_package_is_explained_in_one_line(module, extra):
    error = explain(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert isinstance(error, MissingExtraError)
    assert str(error) == (
        f"this needs {module}, which is not installed; install it with: {install_command(extra)}"
    )


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'musictagger[train]'"),
        (
            {"url": "file:///home/me/my%20code", "dir_info": {"editable": True}},
            "pip install -e '/home/me/my code[train]'",
        ),
        ({"url": "file:///home/me/code", "dir_info": {}}, "pip install '/home/me/code[train]'"),
        (
            {"url": "file:///tmp/musictagger-1-py3-none-any.whl", "archive_info": {}},
            "pip install '/tmp/musictagger-1-py3-none-any.whl[train]'",
        ),
        (
            {"url": "https://example.org/musictagger.tar.gz", "archive_info": {}},
            "pip install 'musictagger[train] @ https://example.org/musictagger.tar.gz'",
        ),
        (
            {
                "url": "https://example.org/tagger.git",
                "vcs_info": {"vcs": "git", "commit_id": "0a1b", "requested_revision": "main"},
            },
            "pip install 'musictagger[train] @ git+https://example.org/tagger.git@0a1b'",
        ),
        (
            {"url": "file:///srv/tagger.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            "pip install 'musictagger[train] @ git+file:///srv/tagger.git@0a1b'",
        ),
    ],
    ids=["index", "editable", "folder", "wheel", "address", "repository", "local repository"],
)
def test_an_extra_comes_from_where_the_package_came_from(tmp_path, monkeypatch, origin, command):
    about = tmp_path / "musictagger-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: musictagger\nVersion: 1\n")
    if origin is not None:
        (about / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "tagger" / "extras.py"))
    assert install_command("train") == command


def test_run_from_its_folder_the_extra_comes_from_there(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert install_command("train") == f"pip install -e '{ROOT}[train]'"


def test_no_text_of_the_project_names_a_distribution_of_somebody_else():
    files = [*ROOT.glob("*.*"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*")]
    for path in (*files, *(ROOT / "tagger").rglob("*.py"), *(ROOT / "preprocess").rglob("*.py")):
        if path.is_file():
            assert not re.search(r"""install ['"]?tagger\b""", path.read_text("utf-8")), path


def test_the_pinned_versions_suit_pip_on_each_python_that_is_promised():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        # Made for Python 3.10 and older: pip refuses it, uv takes no notice.
        assert not line.startswith("backports-strenum")


@pytest.mark.parametrize("name", ["nonsense", "tagger.nonsense", "numpy", None, ""])
def test_a_package_that_no_extra_brings_is_not_explained(name):
    assert explain(ModuleNotFoundError("No module", name=name)) is None


# An installation without extras


def allowed_packages():
    """Names under which the base dependencies, and what they depend on, are imported."""
    wanted, distributions = list(BASE), set()
    while wanted:
        name = wanted.pop()
        if name in distributions:
            continue
        distributions.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        wanted += distribution_names(r for r in requirements if "extra ==" not in r)
    return distributions


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED or name in ("google.cloud", "google.api_core"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from tagger.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def light():
    """Run a command line as if only the base dependencies were installed."""
    allowed = allowed_packages()
    blocked = {
        package
        for package, distributions in metadata.packages_distributions().items()
        if not {normal(name) for name in distributions} & (allowed | {"tagger", "musictagger"})
    }
    assert {"tensorflow", "tf_keras", "sklearn", "scipy", "pandas", "h5py", "librosa"} <= blocked
    assert not {"numpy", "pydantic", "typer", "rich", "soundfile", "requests"} & blocked

    def run(*arguments, cwd=None, **environment):
        return subprocess.run(
            [sys.executable, "-c", f"BLOCKED = {blocked!r}{BLOCKER}", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=cwd,
            # This code, wherever another copy is installed.
            env={
                "PATH": "",
                "HOME": "/nonexistent",
                "PYTHONPATH": os.environ["PYTHONPATH"],
                **environment,
            },
        )

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with a store, a run that has a bundle, scores, and a clip."""
    folder = tmp_path_factory.mktemp("light")
    make_store(folder / "store", n_clips=32)
    config = small_config(folder)
    config.save(folder / "config.yaml")
    run = folder / "run"
    make_bundle(run / "bundle")
    small_model()[0].save_weights(run / "best.weights.h5")
    config.save(run / "config.yaml")
    description = {"format_version": 1, "front_end_hash": config.make_front_end().spec_hash()}
    (run / "run.json").write_text(json.dumps(description))
    (run / "vocabulary.json").write_text('{"tags": ["tag 0"], "members": [["tag 0"]]}')
    (run / "split.csv").write_text("clip_id,path,part\n0,0/0.mp3,test\n")
    np.savez(folder / "scores.npz", est=np.eye(3), gt=np.eye(3))
    soundfile.write(folder / "clip.wav", 0.1 * np.sin(np.arange(48000)), 16000)
    return folder


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--config", "config.yaml", "--set", "run.root=other"], "train"),
        (["export", "run", "--quantize", "dynamic"], "train"),
        (["export", "run/bundle", "--format", "onnx"], "train"),
        (["models", "pull", "vggish"], "train"),
        (["evaluate", "run"], "train"),
        (["info", "--config", "config.yaml"], "train"),
        (["predict-tags", "--model", "gs://bucket/model", "clip.wav"], "cloud"),
        (
            [
                "predict-tags",
                "--model",
                "run",
                "--format",
                "parquet",
                "-o",
                "new.parquet",
                "clip.wav",
            ],
            "parquet",
        ),
        (["predict-tags", "--model", "run", "--taggram", "new.png", "clip.wav"], "plots"),
    ],
)
def test_what_needs_an_extra_says_which_in_one_line(light, folder, tmp_path, arguments, extra):
    known = {"config.yaml", "run", "run/bundle", "clip.wav"}
    given = [folder / item if item in known else item for item in arguments]
    done = light(*given, cwd=tmp_path, TAGGER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r"error: this needs [\w.]+, which is not installed; "
        rf"install it with: pip install .*\[{extra}\]'",
        done.stderr.splitlines()[-1],
    ), done.stderr
    # Known before anything is downloaded.
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("model", ["run", "run/bundle"])
def test_tagging_needs_no_extra(light, folder, model):
    done = light("predict-tags", "--model", folder / model, folder / "clip.wav", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "tag 0" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["models", "list"], ["models", "info", "run/bundle"], ["models", "info", "vggish"]],
)
def test_looking_at_models_needs_no_extra(light, folder, tmp_path, arguments):
    given = [folder / item if "/" in item else item for item in arguments]
    done = light(*given, TAGGER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr


def test_evaluating_scores_needs_no_extra(light, folder):
    done = light("evaluate", folder / "scores.npz")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 tags scored" in " ".join(done.stdout.split())


def test_embeddings_need_no_extra(light, folder, tmp_path):
    output = tmp_path / "embeddings.npz"
    done = light("embed", "--model", folder / "run", "-o", output, folder / "clip.wav")
    assert done.returncode == 0, done.stderr
    assert output.exists()
