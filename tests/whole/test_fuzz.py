"""Promises about what others have made: whatever it holds, it is read or refused, and no more.

For each kind of input a process of its own is given mutated ones (see ``fuzzing.py`` and
``fuzzed.py``): 3,000 in each run of the tests, 23,000 in a campaign. ``--fuzz-inputs`` asks for
more, ``--seed`` for others.
"""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from campaigns import FEW_OR_MANY
from fuzzing import Kind, fuzz, problem_of_message
from small_bundle import make_bundle
from small_store import make_store

from tagger.base.errors import AudioError
from tagger.scoring.clip_heads import CLIP_HEADS, save_clip_head

ROOT = Path(__file__).parents[2]
# Shares of the inputs; how long those of a kind take, and how much of a format there is to break.
SHARES = {
    "audio": 7000,
    "metadata": 1500,
    "annotations": 2500,
    "configs": 1500,
    "pickles": 3000,
    "stores": 1500,
    "bundles": 1500,
    "tagging": 400,
    "scores": 1500,
    "runs": 1000,
    "classifiers": 1000,
    "weights": 600,
    "states": 300,
    "lists": 600,
    "archives": 400,
}


def make_seeds(folder):
    """Make what takes long, for which TensorFlow is needed: a bundle; a store, and weights."""
    make_bundle(folder / "bundle")
    make_store(folder / "store", n_clips=5, n_windows=1)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "small.h5", "w") as h5:
        for layer, shape in (("conv1", (3, 3, 1, 4)), ("fc1", (8, 4))):
            h5.create_dataset(f"{layer}/kernel:0", data=rng.random(shape, dtype=np.float32))
            h5.create_dataset(f"{layer}/bias:0", data=np.zeros(4, np.float32), compression="gzip")
    features = rng.normal(size=(24, 6)).astype(np.float32)
    labels = np.eye(2, dtype=np.uint8)[np.arange(24) % 2]
    for name in ("logistic_regression", "nearest_neighbours", "rbf_svm", "xgboost"):
        settings = {"classifier": name, "layers": ["pooled"], "link": "softmax"}
        (head,) = CLIP_HEADS.create("classifier", settings).fits(features, labels)
        save_clip_head(head, folder / f"{name}.npz")
    return folder


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(params=FEW_OR_MANY)
def survive(request, seeds, seed, tmp_path):
    """Fuzz a kind; the numbers are shown with ``-rP``."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured as Linux tells it")

    def fuzz_kind(name):
        in_all = request.config.option.fuzz_inputs
        n = max(20, in_all * SHARES[name] // sum(SHARES.values()))
        outcome = fuzz(name, tmp_path, seeds, seed=seed, n=n)
        print(outcome)
        assert not outcome.findings, "\n\n".join(map(str, outcome.findings))
        # Neither whole files alone, nor nothing but their first bytes.
        assert outcome.n_read + outcome.n_refused == n
        assert min(outcome.n_read, outcome.n_refused) >= max(1, n // 50), str(outcome)

    return fuzz_kind


@pytest.mark.slow
def test_damaged_audio_of_any_format_is_decoded_or_refused(survive):
    survive("audio")


@pytest.mark.slow
def test_tags_are_written_into_damaged_audio_or_it_is_refused(survive):
    survive("metadata")


@pytest.mark.slow
def test_damaged_annotations_are_read_or_refused_and_name_no_file_outside_their_root(survive):
    survive("annotations")


@pytest.mark.slow
def test_damaged_configs_overrides_and_search_spaces_are_read_or_refused(survive):
    survive("configs")


@pytest.mark.slow
def test_damaged_and_hostile_pickles_are_data_or_refused(survive):
    survive("pickles")


@pytest.mark.slow
def test_damaged_manifests_journals_and_shards_are_read_or_refused(survive):
    survive("stores")


@pytest.mark.slow
def test_damaged_bundles_run_or_are_refused_even_if_their_checksums_are_right(survive):
    survive("bundles")


@pytest.mark.slow
def test_good_files_are_tagged_whatever_lies_beside_them(survive):
    survive("tagging")


@pytest.mark.slow
def test_damaged_classifiers_run_or_are_refused(survive):
    survive("classifiers")


@pytest.mark.slow
def test_damaged_archives_of_scores_are_measured_or_refused(survive):
    survive("scores")


@pytest.mark.slow
def test_damaged_files_of_a_run_are_read_or_refused(survive):
    survive("runs")


@pytest.mark.slow
def test_damaged_weight_files_are_read_or_refused(survive):
    survive("weights")


@pytest.mark.slow
def test_damaged_states_of_a_training_are_restored_or_refused(survive):
    survive("states")


@pytest.mark.slow
def test_odd_lists_of_files_and_damaged_audio_on_standard_input_are_read_or_refused(survive):
    survive("lists")


@pytest.mark.slow
def test_damaged_parts_of_an_archive_are_unpacked_or_refused(survive):
    survive("archives")


# ---- what judges -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("{}/a.m4a: ffmpeg cannot decode it (Cannot allocate memory); convert it to wav", None),
        (
            "{}/a.m4a: ffmpeg cannot decode it (Cannot allocate memory); out of memory",
            "asks for more memory than there is",
        ),
        ("{}/a.wav: MemoryError; split the file", "asks for more memory than there is"),
        ("{}/a.wav: Unable to allocate 9 GiB; split it", "asks for more memory than there is"),
        ("{}/a.wav: damaged; convert it to flac", None),
        ("{}/a.wav: damaged", "a message without a remedy"),
        ("a.wav: damaged; convert it to flac", "a message that does not name the file"),
    ],
)
def test_memory_that_ffmpeg_lacks_is_no_finding_and_all_that_we_lack_is(message, problem, tmp_path):
    error = AudioError(message.format(tmp_path))
    assert problem_of_message(error, Kind(tmp_path, tmp_path)) == problem


# ---- code in files -----------------------------------------------------------------------------

# Of each danger a line, with names as modules here have them.
DANGERS = """
from pickle import load, loads
import cloudpickle
import dill
import joblib
import marshal
import os
import pickle
import shelve
import subprocess

import numpy as np
import pandas as pd
import tensorflow
import tf_keras
import yaml
from tf_keras.models import load_model

from tagger.network.keras import keras, tf

pickle.load(x)
pickle.loads(x)
load(x)
pickle.Unpickler(x).load()
marshal.loads(x)
marshal.load(x)
eval(x)
exec(x)
os.system(x)
os.popen(x)
subprocess.run(x, shell=True)
yaml.load(x, Loader=yaml.Loader)
yaml.unsafe_load(x)
yaml.full_load(x)
yaml.load_all(x, Loader=yaml.Loader)
np.load(x)
np.load(x, allow_pickle=True)
np.lib.format.read_array(x, allow_pickle=True)
np.fromregex(x, y, z)
pd.read_pickle(x)
keras.models.load_model(x, safe_mode=False)
keras.models.model_from_json(x)
keras.layers.Lambda(x)
tf.saved_model.load(x)
tf.keras.models.load_model(x)
tf.import_graph_def(x)
tf_keras.models.load_model(x)
tensorflow.keras.models.load_model(x)
"""
# Imports that are no danger before they are used.
HARMLESS = {
    *("import marshal", "import numpy as np", "import os", "import pandas as pd", "import pickle"),
    *("import subprocess", "import tensorflow", "import tf_keras", "import yaml"),
    "from pickle import load, loads",
    "from tagger.network.keras import keras, tf",
}


def lines_refused(source):
    """Lines that ruff refuses in a module of the package by the rules of what is dangerous."""
    options = ["--output-format", "json", "--select", "S,TID251", "--stdin-filename"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, "tagger/new_module.py", "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode in (0, 1), done.stderr
    lines = source.splitlines()
    return {lines[finding["location"]["row"] - 1] for finding in json.loads(done.stdout)}


def test_ruff_refuses_what_would_execute_what_a_file_holds():
    pytest.importorskip("ruff")
    assert lines_refused(DANGERS) == {*filter(None, DANGERS.splitlines())} - HARMLESS
