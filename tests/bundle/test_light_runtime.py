"""Promises of the base installation: tagging needs no package beyond the base dependencies."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_model import small_run

ROOT = Path(__file__).parents[2]
HEAVY = {
    "autopool",
    "google",
    "h5py",
    "joblib",
    "keras",
    "librosa",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "pandas",
    "pescador",
    "pyarrow",
    "scipy",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "tf2onnx",
    "tf_keras",
}
VERBS = [
    [],
    ["preprocess"],
    ["train"],
    ["evaluate"],
    ["compare"],
    ["calibrate"],
    ["predict-tags"],
    ["embed"],
    ["export"],
    ["models"],
    ["models", "list"],
    ["models", "pull"],
    ["models", "info"],
    ["info"],
    ["demo-corpus"],
    ["fetch-magnatagatune"],
]
# A program with all packages but those of the base installation hidden from it.
HIDDEN = """
import json, sys

hidden, arguments = json.loads(sys.argv[1]), json.loads(sys.argv[2])
# Of the way in which this checkout is installed.
present = set(sys.modules)

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
code = 0
if arguments is None:
    import tagger
else:
    from tagger.cli.main import main
    sys.argv = ["tagger", *arguments]
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
loaded = sorted({name.partition(".")[0] for name in set(sys.modules) - present} & set(hidden))
print("LOADED", loaded, file=sys.stderr)
sys.exit(code)
"""


def base_distributions():
    """Names of the base dependencies, and of their own in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    found = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += map(Requirement, importlib.metadata.requires(name) or [])
    return found


@pytest.fixture(scope="module")
def hidden():
    """Top-level packages that are installed here but are no part of the base installation."""
    base = base_distributions()
    packages = {
        package
        for package, distributions in importlib.metadata.packages_distributions().items()
        if not base & {canonicalize_name(name) for name in distributions}
    }
    return sorted((packages | HEAVY) - {"tagger", "preprocess"})


@pytest.fixture
def light(hidden, tmp_path):
    """Run a command with the base installation alone: exit code, stdout, stderr."""

    def run(arguments):
        done = subprocess.run(
            [sys.executable, "-c", HIDDEN, json.dumps(hidden), json.dumps(arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ,
        )
        lines = done.stderr.splitlines()
        assert lines[-1] == "LOADED []", done.stderr
        return done.returncode, done.stdout, "\n".join(lines[:-1])

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory)


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    sf.write(path, np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
    return path


def test_what_is_hidden_holds_every_heavy_package_and_none_of_the_base(hidden):
    assert set(hidden) >= HEAVY
    assert not set(hidden) & {"numpy", "soundfile", "soxr", "typer", "rich", "ai_edge_litert"}


def test_the_package_is_imported_with_the_base_installation(light):
    assert light(None) == (0, "", "")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_needs_the_base_installation_alone(light, verb):
    code, out, err = light([*verb, "--help"])
    assert (code, err) == (0, "")
    assert " ".join(["Usage: tagger", *verb]) in out


@pytest.mark.parametrize("format_", ["table", "json", "jsonl", "csv"])
def test_tags_are_predicted_with_the_base_installation(light, run, song, format_):
    code, out, err = light(
        ["predict-tags", str(song), "--model", str(run), f"--format={format_}", "--segments"]
    )
    assert (code, err) == (0, "")
    assert out.count("tag 0") == 3


@pytest.mark.parametrize("format_", ["audacity", "jams", "npz", "raven"])
def test_a_file_for_each_input_needs_the_base_installation_alone(light, run, song, format_):
    output = song.parent / "out"
    code, _, err = light(
        ["predict-tags", str(song), "--model", str(run), f"--format={format_}", "-o", str(output)]
    )
    assert (code, err) == (0, f"wrote a file each of 1 files to {output}")
    assert len(list(output.iterdir())) == 1


def test_tags_are_written_into_files_with_the_base_installation(light, run, song):
    arguments = ["predict-tags", str(song), "--model", str(run)]
    code, _, err = light([*arguments, "--write-tags", "--threshold=0"])
    assert (code, err) == (0, "changed the genre of 1 of 1 files")
    code, out, err = light([*arguments, "--undo-write-tags"])
    assert (code, out, err) == (0, "1 of 1 files have their tags of before back\n", "")


def test_embeddings_are_written_with_the_base_installation(light, run, song):
    output = song.parent / "out.npz"
    code, out, err = light(["embed", str(song), "--model", str(run), "-o", str(output)])
    assert (code, out, err) == (0, f"{output}: 1 files, 0 failed\n", "")
    assert len(np.load(output)["embeddings"]) == 3


def test_models_are_listed_and_described_with_the_base_installation(light, run):
    code, out, err = light(["models", "list"])
    assert (code, err) == (0, "") and "musicnn-mtt" in out
    code, out, err = light(["models", "info", str(run)])
    assert (code, err) == (0, "") and "tag 0, tag 1, tag 2" in out


@pytest.mark.parametrize(
    ("format_", "extra", "output"), [("parquet", "parquet", "a.parquet"), ("png", "plots", "out")]
)
def test_a_format_that_needs_an_extra_names_it(light, run, song, format_, extra, output):
    code, out, err = light(
        ["predict-tags", str(song), "--model", str(run), "--format", format_, "-o", output]
    )
    assert (code, out) == (2, "")
    assert err.startswith("error: this needs ") and err.endswith(f"[{extra}]'")
    assert not (song.parent / "a.parquet").exists()


def test_embeddings_in_a_format_that_needs_an_extra_name_it(light, run, song):
    code, _, err = light(["embed", str(song), "--model", str(run), "-o", "a.parquet"])
    assert code == 2
    assert err.endswith("[parquet]'")
    assert not list(song.parent.glob("*.parquet"))


IMPORT = """
import sys
import tagger
print([name for name in ("numpy", "requests", "pydantic", "soundfile") if name in sys.modules])
"""


def test_importing_the_package_brings_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"
