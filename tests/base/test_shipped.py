"""Promises of what comes with the programme: config files, in a checkout and in a wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from preprocess.clips.vocabulary import read_synonyms
from tagger.base import shipped
from tagger.base.errors import ConfigError
from tagger.base.suggest import did_you_mean
from tagger.config import load_config
from tagger.study.study_file import read_study

ROOT = Path(__file__).parents[2]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('out'))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder with what a wheel of this tree installs."""
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("tagger", "preprocess", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    target = tmp_path_factory.mktemp("installed")
    (wheel,) = (root / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def light_tagger(installed, tmp_path):
    """Run the command of that wheel, far from the checkout."""

    def call(*arguments):
        command = [sys.executable, "-m", "tagger", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return call


def test_a_wheel_carries_what_help_and_errors_refer_to(installed, light_tagger, tmp_path):
    shown = light_tagger("config", "show")
    assert shown.stdout == (ROOT / "configs/base.yaml").read_text()
    listed = light_tagger("config", "list").stdout
    assert "synonyms/magnatagatune: " in listed and "studies/gtzan_leak: " in listed
    wrong = light_tagger("config", "show", "--set", "train.epoch=5")
    assert wrong.returncode == 2
    assert "train.epoch: unknown key (did you mean epochs?)" in wrong.stderr
    new = light_tagger("config", "new", "mine.yaml", "--from", "magnatagatune_vggish/autopool")
    assert new.returncode == 0, new.stderr
    mine = light_tagger("config", "show", "--config", "mine.yaml")
    named = light_tagger("config", "show", "--config", "magnatagatune_vggish/autopool")
    assert mine.returncode == 0 and mine.stdout == named.stdout != ""
    again = light_tagger("config", "new", "mine.yaml")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_nothing_but_our_packages_is_installed(installed):
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "tagger",
        "preprocess",
    }


def test_a_file_of_ones_own_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        load_config(Path("demo")).train.epochs
        == load_config(ROOT / "configs/demo.yaml").train.epochs
    )
    Path("demo.yaml").write_text("train: {epochs: 77}\n")
    assert load_config(Path("demo.yaml")).train.epochs == 77
    Path("mine.yaml").write_text("extends: magnatagatune_vggish/vggish.yaml\ntrain: {epochs: 3}\n")
    shipped = load_config(Path("magnatagatune_vggish/vggish"))
    assert load_config(Path("mine.yaml")).data.tags == shipped.data.tags
    assert read_synonyms(Path("magnatagatune"))["classical"]
    assert read_synonyms(Path("configs/synonyms/magnatagatune.yaml"))["classical"]
    assert read_study(Path("gtzan_leak")).variants


def test_no_name_leads_out_of_the_shipped_files(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    (tmp_path / "secret.yaml").write_text("train: {epochs: 1}\n")
    monkeypatch.setattr(shipped, "_FOLDERS", (folder,))
    assert shipped.given_or_shipped(Path("../secret")) == Path("../secret")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("autopol", "magnatagatune_vggish/autopool"), ("scene", "scenes"), ("nothing like it", "")],
)
def test_a_config_that_is_not_there_names_what_may_be_meant(name, hint):
    with pytest.raises(ConfigError) as error:
        load_config(Path(name))
    assert (f"(did you mean {hint}?)" in str(error.value)) == bool(hint)


def test_words_are_suggested_whatever_their_case():
    assert did_you_mean("Musicnn_MTT", ["musicnn-mtt", "vgg-mtt"]) == " (did you mean musicnn-mtt?)"
    assert did_you_mean("xyz", ["musicnn-mtt"]) == ""
