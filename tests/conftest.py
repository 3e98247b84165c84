"""Fixtures that the tests share, and what the command line of pytest says."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"

# What is tested, and what an installed package adds to it: found by this process and by those that
# tests start, in any folder.
PYTHONPATH = (str(Path(__file__).parents[1]), str(Path(__file__).parent / "plugin"))
# Beside it, what several tests share.
sys.path[:0] = (*PYTHONPATH, str(Path(__file__).parent / "support"))
os.environ["PYTHONPATH"] = os.pathsep.join(PYTHONPATH)

# What librosa compiles is kept in files, which two processes that write them at once would damage.
_OWN = f"tagger-tests-{os.getuid()}-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / _OWN))

# Elsewhere hypothesis looks at other examples each time; on CI the same code gives the same result.
# How long an example takes depends on what else the machine does: that is no promise.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("here", deadline=None, max_examples=25)
settings.register_profile("campaign", deadline=None, max_examples=500)

# A shell starts its background jobs with Ctrl-C ignored, and their children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden values anew instead of comparing with them",
    )
    parser.addoption(
        "--campaign",
        action="store_true",
        help="run the long tests, which are left out otherwise, and no others",
    )
    parser.addoption(
        "--seed",
        type=int,
        help="what tests draw from; otherwise 0, and with --campaign another each time",
    )
    parser.addoption(
        "--kills", type=int, help="moments at which each verb is killed: 1; with --campaign 20"
    )
    parser.addoption(
        "--fuzz-inputs", type=int, help="mutated inputs in all: 2,000; with --campaign 23,000"
    )


def pytest_configure(config):
    option = config.option
    here = "ci" if os.environ.get("CI") else "here"
    settings.load_profile("campaign" if option.campaign else here)
    if hasattr(config, "workerinput"):
        # A process of pytest-xdist: the seed was drawn where it was started.
        option.seed = config.workerinput["seed"]
    elif option.seed is None:
        option.seed = random.SystemRandom().randrange(2**31) if option.campaign else 0
    if option.kills is None:
        option.kills = 20 if option.campaign else 1
    if option.fuzz_inputs is None:
        option.fuzz_inputs = 23_000 if option.campaign else 2_000


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell a process of pytest-xdist the seed."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config):
    return f"seed: {config.option.seed} (--seed {config.option.seed} repeats it)"


def pytest_terminal_summary(terminalreporter, config):
    # Hours after the header, and where -q has left that out.
    if config.option.campaign:
        terminalreporter.write_line(f"seed: {config.option.seed}")


def pytest_collection_modifyitems(config, items):
    """Tests marked `campaign` run with --campaign, and those that draw; all others without it."""
    wanted, others = [], []
    for item in items:
        is_long = item.get_closest_marker("campaign") is not None
        # What draws examples draws more of them in a campaign.
        draws = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        is_wanted = is_long or draws if config.option.campaign else not is_long
        (wanted if is_wanted else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
    # The longest file first: at the end it would keep one process busy and the other waiting.
    items[:] = sorted(wanted, key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(scope="session")
def seed(request):
    """What tests draw from: the same number where it is given, or where nothing is."""
    return request.config.option.seed


@pytest.fixture(scope="session")
def shared():
    """Reference data beside the checkout."""
    if not (SHARED / "magnatagatune" / "annotations_final.csv").exists():
        pytest.skip("the reference data is not beside the checkout")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def own_cache_of_the_tests(tmp_path_factory):
    """Nothing is kept in the cache of whoever runs the tests, or read from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAGGER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def musicnn_cache(tmp_path_factory):
    """Cache folder in which musicnn-mtt has been pulled, for tests to set as TAGGER_CACHE."""
    from tagger.base.errors import ModelError
    from tagger.bundle.models import pull
    from tagger.bundle.models.musicnn import cached_wheel

    cache = tmp_path_factory.mktemp("musicnn_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAGGER_CACHE", str(cache))
        try:
            cached_wheel()
        except ModelError:
            pytest.skip("pip cannot fetch the package musicnn 0.1.0 here")
        pull("musicnn-mtt")
    return cache


@pytest.fixture(scope="session")
def launcher(tmp_path_factory):
    """What starts command lines that can be killed: one process for all tests."""
    from killable import Launcher

    with Launcher(tmp_path_factory.mktemp("launcher") / "log") as started:
        yield started


@pytest.fixture(scope="session")
def training(request, tmp_path_factory, launcher):
    """A store and a run that was trained on it; who uses them lays them out first."""
    from outcomes import Training

    return Training(
        tmp_path_factory.mktemp("trained"), launcher, long=request.config.option.campaign
    )


@pytest.fixture(scope="session")
def few_clips(tmp_path_factory):
    """Sixteen clips of the demo corpus, which no test changes."""
    from preprocess.clips.demo_corpus import write_demo_corpus

    root = tmp_path_factory.mktemp("clips")
    write_demo_corpus(root, n_clips=16, clip_seconds=3.0, seed=0)
    return root


@pytest.fixture
def golden(request):
    """Compare named numbers with those in tests/golden, or store them with --update-golden."""

    def compare(name, values, *, atol):
        path = GOLDEN / f"{name}.json"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            plain = {key: np.asarray(value).round(6).tolist() for key, value in values.items()}
            path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert stored.keys() == values.keys()
        for key, value in values.items():
            np.testing.assert_allclose(value, stored[key], rtol=0, atol=atol, err_msg=key)

    return compare


@pytest.fixture
def tiny_corpus(tmp_path):
    """A corpus of eight clips in MagnaTagATune's layout."""
    root = tmp_path / "corpus"
    root.mkdir()
    from tiny_corpus import write_tiny_corpus

    return write_tiny_corpus(root)


@pytest.fixture
def command(monkeypatch, capfd):
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments):
        from tagger.cli import main as cli

        monkeypatch.setattr(sys, "argv", ["tagger", *map(str, arguments)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def without_export(monkeypatch):
    """Let training end without a bundle, whose making takes longer than a short training."""
    monkeypatch.setattr("tagger.bundle.export.export_run", lambda run, **_: [])


@pytest.fixture
def without_pictures(monkeypatch):
    """Let reports be written without drawing, which takes longer than a small evaluation."""
    monkeypatch.setattr("tagger.evaluate.report._png", lambda figure: b"no picture")


_converted = {}


@pytest.fixture
def remembered_conversions(monkeypatch):
    """Let LiteRT convert a network once: for tests of what is done with the file it gives."""
    from tagger.bundle.exporters.litert import LitertExporter

    convert = LitertExporter.write

    def write(self, model, path, quantize):
        # Names that Keras numbers differ each time.
        layers = re.sub(r'_\d+"', '"', json.dumps(model.output_model.get_config(), default=str))
        digest = hashlib.blake2b(f"{quantize} {layers}".encode())
        for weight in model.weights.values():
            digest.update(weight.numpy().tobytes())
        if digest.digest() not in _converted:
            convert(self, model, path, quantize)
            _converted[digest.digest()] = path.read_bytes()
        path.write_bytes(_converted[digest.digest()])

    monkeypatch.setattr(LitertExporter, "write", write)
