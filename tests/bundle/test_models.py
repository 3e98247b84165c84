"""Promises of models by name: pulled, converted without loss, found however they are named."""

import ast
import contextlib
import http.server
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from campaigns import quick_some
from published_musicnn import OUTPUTS, extract_published, run_published
from published_vggish import BODY, FULLY_CONNECTED, published_tensors, write_checkpoint
from small_bundle import make_bundle, small_model

import tagger
from preprocess.signal.windows import windows_of_file
from tagger.base.errors import ModelError
from tagger.bundle import models
from tagger.bundle.find import default_model, describe_model, find_bundle, newest_run
from tagger.bundle.models import pull, registered_models
from tagger.bundle.models.musicnn import (
    ENTRIES,
    MSD_TAGS,
    MTT_TAGS,
    WHEEL,
    cached_wheel,
    extract_checkpoint,
    published_weights,
)
from tagger.bundle.read import Bundle
from tagger.bundle.runtime import Runtime
from tagger.bundle.write import load_model
from tagger.cloud.download import RemoteFile
from tagger.network import weights
from tagger.network.backbones import vggish as vggish_backbone
from tagger.network.backbones.vggish import VggishBackbone
from tagger.tagging.tagger import Tagger

RATE = 16000
NAMES = ["musicnn-mtt", "vgg-mtt", "musicnn-msd", "vgg-msd"]


@pytest.fixture
def cache(musicnn_cache, monkeypatch):
    """The shared cache; nothing in it may be changed."""
    monkeypatch.setenv("TAGGER_CACHE", str(musicnn_cache))
    return musicnn_cache


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_runs(tmp_path, monkeypatch):
    """A working folder without training runs."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("TAGGER_MODEL", raising=False)
    return tmp_path / "cwd"


# The registry


def test_the_registered_models_are_these():
    found = {name: (entry.n_tags, entry.licence) for name, entry in registered_models().items()}
    assert list(found) == [*NAMES, "vggish"]
    assert [n_tags for n_tags, _ in found.values()] == [50, 50, 50, 50, 0]
    assert all(licence for _, licence in found.values())


def test_each_vocabulary_has_fifty_different_tags():
    for tags in (MTT_TAGS, MSD_TAGS):
        assert len(set(tags)) == 50


def constants(source):
    """Values that a module's source assigns, without running it."""
    found = {}
    for node in ast.parse(source).body:
        with contextlib.suppress(ValueError, AttributeError):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_the_tags_and_figures_are_those_of_the_package(cache):
    with zipfile.ZipFile(cached_wheel()) as wheel:
        configuration = constants(wheel.read("musicnn/configuration.py"))
        results = {
            entry.name: wheel.read(f"musicnn/{entry.checkpoint}/experiment.result").decode()
            for entry in ENTRIES
        }
        licence = wheel.read("musicnn-0.1.0.dist-info/LICENSE.md").decode()
    assert list(MTT_TAGS) == configuration["MTT_LABELS"]
    assert list(MSD_TAGS) == configuration["MSD_LABELS"]
    for entry in ENTRIES:
        figures = [float(figure) for figure in re.findall(r"AUC: (\S+)", results[entry.name])]
        assert list(entry.published.values()) == pytest.approx(figures, abs=5e-5)
    assert "ISC" in licence
    assert "Universitat Pompeu Fabra" in licence


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match="nonsense: no registered model; choose one of musicnn"):
        pull("nonsense")


def test_a_model_that_is_not_here_is_described_with_the_command_that_fetches_it(own_cache):
    lines = describe_model("vgg-msd")
    assert lines[0] == "vgg-msd: VGG trained on the Million Song Dataset"
    assert f"tags (50): {', '.join(MSD_TAGS)}" in lines
    assert lines[-1] == "not here yet; fetch it with: tagger models pull vgg-msd"
    assert not own_cache.exists()


def test_the_list_says_what_each_model_is_good_for_within_80_columns(own_cache, command):
    code, out, _ = command("models", "list")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "musicnn-msd  50 tags     6.5  ISC        no   genres, decades, moods of songs" in out


# The package musicnn


def test_a_pulled_model_is_described(cache):
    bundle = pull("musicnn-mtt")
    assert bundle.root == cache / "models" / "musicnn-mtt"
    assert bundle.tags() == MTT_TAGS
    assert bundle.outputs == {"mean_pool": 753, "max_pool": 753, "penultimate": 200, "scores": 50}
    assert bundle.metrics() == {
        "published by the authors": {"roc_auc_macro": 0.9067, "pr_auc_macro": 0.3831}
    }
    text = "\n".join(describe_model("musicnn-mtt"))
    for part in (bundle.version, "licence: ISC", "front end: musicnn", "penultimate (200)"):
        assert part in text


def test_a_model_that_is_here_is_not_pulled_again(cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    before = (cache / "models" / "musicnn-mtt" / "bundle.json").stat()
    assert pull("musicnn-mtt").name == "musicnn-mtt"
    assert (cache / "models" / "musicnn-mtt" / "bundle.json").stat() == before


def tensors_of(folder, checkpoint):
    return weights.read_tensors(extract_checkpoint(cached_wheel(), checkpoint, folder))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_networks_have_the_published_weights_and_no_others(cache, tmp_path, entry):
    from tagger.network.model import build_model

    config = entry.config()
    model = build_model(config, config.make_front_end(), entry.tags)
    shapes = {name: tuple(variable.shape) for name, variable in model.weights.items()}
    tensors = tensors_of(tmp_path, entry.checkpoint)
    found = published_weights(tensors, shapes, entry.backbone)
    theirs = {
        name: tensor.size
        for name, tensor in tensors.items()
        if "Adam" not in name and not name.endswith("_power")
    }
    assert sum(tensor.size for tensor in found.values()) == sum(theirs.values())
    assert len(found) == len(theirs)


def test_a_checkpoint_that_does_not_fit_is_refused_by_weight():
    with pytest.raises(ModelError, match=r"no tensor of shape .* for timbral74/kernel; it is not"):
        published_weights(
            {"conv2d/kernel": np.zeros((7, 3, 1, 204))},
            {"timbral74/kernel": (7, 38, 1, 204)},
            "musicnn",
        )


def librosa_windows(path):
    """The input as the package computes it, in windows that follow one another."""
    import librosa

    waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE
    mel = librosa.feature.melspectrogram(
        y=waveform.mean(axis=1),
        sr=RATE,
        n_fft=512,
        hop_length=256,
        n_mels=96,
        pad_mode="reflect",
    )
    log_mel = np.log10(10000 * mel.T + 1).astype(np.float32)
    n_windows = len(log_mel) // 187
    return log_mel[: n_windows * 187].reshape(n_windows, 187, 96)


@pytest.fixture(scope="module")
def clips(shared):
    reference = sorted((shared / "magnatagatune" / "reference").glob("*.mp3"))
    scenes = [sorted((shared / "scenes" / folder).glob("*.mp3"))[0] for folder in "0ce"]
    assert len(reference) == 1
    return [*reference, *scenes]


@pytest.mark.slow
@pytest.mark.parametrize("name", quick_some(NAMES, ["vgg-mtt"]))
@pytest.mark.campaign
def test_a_converted_model_answers_as_the_published_graph(
    clips, musicnn_cache, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "musicnn").symlink_to(musicnn_cache / "musicnn")
    entry = registered_models()[name]
    front_end = entry.config().make_front_end()
    ours = np.concatenate([windows_of_file(path, front_end)[0]["log_mel"] for path in clips])
    librosas = np.concatenate([librosa_windows(path) for path in clips])
    np.testing.assert_allclose(ours, librosas, rtol=0, atol=1e-5)

    bundle = pull(name)
    keras = load_model(bundle).output_model({"log_mel": ours}, training=False)
    litert = Runtime(bundle.verified("model.tflite"))({"log_mel": ours})
    prefix = extract_published(cached_wheel(), entry.checkpoint, tmp_path)
    for log_mel in (ours, librosas):
        published = run_published(prefix, OUTPUTS[entry.backbone], log_mel)
        assert published.keys() == keras.keys() == litert.keys()
        # Spread over the scale: not all near nothing.
        assert published["scores"].max() > 0.5
        for output, expected in published.items():
            # Scores to 1e-5; of an embedding, whose values may be over 100, of the largest.
            atol = 1e-5 * max(1.0, float(np.abs(expected).max()))
            for found in (keras[output].numpy(), litert[output]):
                np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=output)


def test_a_real_clip_gets_the_published_tags(clips, cache):
    top = tagger.top_tags(clips[0], model=cache / "models" / "musicnn-mtt")
    assert [tag for tag, _ in top] == [
        "techno",
        "electronic",
        "synth",
        "fast",
        "beat",
        "drums",
        "no vocals",
        "no vocal",
        "dance",
        "ambient",
    ]


# Fetching the package


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_wheel_comes_from_where_pip_is_told(cache, own_cache, local_index):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAGGER_CACHE", str(cache))
        shutil.copy(cached_wheel(), local_index)
    wheel = cached_wheel()
    assert wheel == own_cache / "musicnn" / WHEEL
    assert [path.name for path in wheel.parent.iterdir()] == [WHEEL]


def other_wheel(path):
    """A wheel that pip takes for the package, with other content."""
    info = "musicnn-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("musicnn/__init__.py", "raise SystemExit('ran')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: musicnn\nVersion: 0.1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_another_wheel_is_refused_and_not_kept(own_cache, local_index, command):
    other_wheel(local_index / WHEEL)
    code, out, err = command("models", "pull", "musicnn-mtt")
    assert (code, out.strip()) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: musicnn==0.1.0: the index gave a wheel with sha256 ")
    assert last.endswith("it is not the published one, so it is not used: check your package index")
    assert "Traceback" not in err
    assert list((own_cache / "musicnn").iterdir()) == []


def test_a_wheel_that_was_damaged_in_the_cache_is_fetched_again(cache, own_cache, local_index):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAGGER_CACHE", str(cache))
        shutil.copy(cached_wheel(), local_index)
    (own_cache / "musicnn").mkdir(parents=True)
    (own_cache / "musicnn" / WHEEL).write_bytes(b"damaged")
    assert zipfile.is_zipfile(cached_wheel())


def test_the_wheel_may_come_from_a_file_a_folder_or_a_mirror(
    cache, own_cache, tmp_path, monkeypatch, command
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAGGER_CACHE", str(cache))
        (tmp_path / "mirror").mkdir()
        shutil.copy(cached_wheel(), tmp_path / "mirror")
    monkeypatch.setattr(subprocess, "run", None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server_of(tmp_path / "mirror") as url:
        sources = [tmp_path / "mirror", tmp_path / "mirror" / WHEEL, url, f"{url}/{WHEEL}"]
        for source in sources:
            code, _, err = command("models", "pull", "vgg-mtt", "--from", source)
            assert code == 0, err
            shutil.rmtree(own_cache / "models")
        code, _, err = command("models", "pull", "vgg-mtt", "--from", f"{url}/nowhere/")
        # What came from the mirror before is still known.
        assert code == 0, err
        shutil.rmtree(own_cache / "published")
        code, _, err = command("models", "pull", "vgg-mtt", "--again", "--from", f"{url}/nowhere/")
        assert code == 2 and "no such file; check the address" in err
    other_wheel(tmp_path / "mirror" / WHEEL)
    code, _, err = command("models", "pull", "vgg-mtt", "--again", "--from", tmp_path / "mirror")
    assert code == 2 and "it is not the published musicnn" in err
    code, _, err = command("models", "pull", "vgg-mtt", "--again", "--from", tmp_path / "none")
    assert code == 2 and "no such file; give musicnn-0.1.0" in err


def test_without_a_package_index_one_line_says_what_to_do(own_cache, local_index, command):
    code, _, err = command("models", "pull", "vgg-mtt")
    assert code == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == [err.splitlines()[-1]]
    assert errors[0] == (
        "error: musicnn==0.1.0: pip download failed (see above); check your package index and "
        f"network, or give --from a folder or address that holds {WHEEL}"
    )
    assert "Traceback" not in err
    assert not (own_cache / "models").exists()


def test_without_pip_one_line_says_what_to_install(own_cache, command, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name)
    )
    code, _, err = command("models", "pull", "musicnn-mtt")
    assert code == 2
    assert err.splitlines()[-1] == (
        f"error: musicnn==0.1.0: is fetched with pip, which {sys.executable} does not have; "
        f"install it with: {sys.executable} -m ensurepip"
    )


def test_a_download_that_takes_for_ever_ends_with_one_line(own_cache, monkeypatch):
    monkeypatch.setattr("tagger.bundle.models.musicnn._DOWNLOAD_SECONDS", 0.01)
    with pytest.raises(ModelError, match=r"pip download failed \(.*timed out.*\); try again, or"):
        cached_wheel()


def test_the_wheel_is_fetched_where_stderr_is_no_file(own_cache, local_index, monkeypatch):
    # As in a notebook.
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(ModelError, match=r"pip download failed \(see above\)"):
        cached_wheel()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"file/musicnn: cannot be written .* TAGGER_CACHE"):
        cached_wheel()


# VGGish


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def server_of(folder):
    """Address of a server of a folder's files."""

    def handler(*arguments):
        return Quiet(*arguments, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def served_vggish(tmp_path, own_cache, monkeypatch):
    """Serve a checkpoint in one file as the published one; gives its function."""
    from published_vggish import write_single_file

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as stack:

        def serve(tensors):
            folder = tmp_path / "server"
            folder.mkdir()
            write_single_file(folder / "vggish_model.ckpt", tensors)
            url = stack.enter_context(server_of(folder))
            remote = RemoteFile(f"{url}/vggish_model.ckpt", "vggish_model.ckpt", None)
            monkeypatch.setattr("tagger.bundle.models.vggish.CHECKPOINT", remote)

        yield serve


@pytest.fixture
def narrow(monkeypatch):
    """Fully connected layers of fewer units, as 290 MB take their time; gives their shapes."""
    sizes = (("fc1_1", 32), ("fc1_2", 32), ("fc2", 128))
    monkeypatch.setattr(vggish_backbone, "FULLY_CONNECTED", sizes)
    return {
        "vggish/fc1/fc1_1": (12288, 32),
        "vggish/fc1/fc1_2": (32, 32),
        "vggish/fc2": (32, 128),
    }


def test_vggish_with_other_weights_is_refused_by_its_smoke_test(served_vggish, narrow, command):
    served_vggish(published_tensors({**BODY, **narrow}))
    code, out, err = command("models", "pull", "vggish")
    assert (code, out.strip()) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith(
        "error: vggish: the weights do not pass the published smoke test (FAIL: embedding mean "
    )
    assert last.endswith("); delete them from the cache and pull again")
    assert not Bundle.is_at(models.pulled_bundle("vggish"))


def expected_figures(tensors, monkeypatch):
    """Make the figures of these weights the published ones."""
    smoke_test = VggishBackbone.smoke_test

    def as_published(self, model):
        figures = smoke_test(self, model).figures
        mean, std = (measured for measured, _ in figures.values())
        monkeypatch.setattr(vggish_backbone, "_SMOKE_TEST_MEAN", mean)
        monkeypatch.setattr(vggish_backbone, "_SMOKE_TEST_STD", std)
        return smoke_test(self, model)

    monkeypatch.setattr(VggishBackbone, "smoke_test", as_published)


def test_vggish_gives_embeddings_and_no_tags(served_vggish, narrow, command, monkeypatch, tmp_path):
    tensors = published_tensors({**BODY, **narrow})
    served_vggish(tensors)
    expected_figures(tensors, monkeypatch)
    code, out, err = command("models", "pull", "vggish")
    assert code == 0, err
    assert "published smoke test: pass" in err
    bundle = pull("vggish")
    assert bundle.outputs == {"pooled": 512, "embedding": 128}
    assert bundle.tags() == ()
    assert bundle.version in out

    soundfile.write(tmp_path / "clip.wav", 0.1 * np.sin(np.arange(3 * RATE)), RATE)
    code, out, err = command("predict-tags", "--model", "vggish", tmp_path / "clip.wav")
    assert (code, out) == (2, "")
    assert "use 'tagger embed'" in err.splitlines()[-1]
    loaded = Tagger.load("vggish")
    for layer, size in bundle.outputs.items():
        assert loaded.embed(tmp_path / "clip.wav", layer=layer).values.shape == (3, size)
    patches = windows_of_file(tmp_path / "clip.wav", loaded.front_end)[0]
    network = load_model(bundle).embedding_model(patches).numpy()
    found = loaded.embed(tmp_path / "clip.wav", layer="embedding").values
    np.testing.assert_allclose(found, network, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.campaign
def test_vggish_is_pulled_in_its_real_size(own_cache, tmp_path, monkeypatch):
    tensors = published_tensors({**BODY, **FULLY_CONNECTED})
    # Smaller ones, as those that were trained.
    for name in tensors:
        if "fc" in name:
            tensors[name] *= 0.2
    path = write_checkpoint(tmp_path / "published" / "vggish_model.ckpt", tensors)
    monkeypatch.setattr("tagger.bundle.models.vggish.cached_download", lambda _: path)
    expected_figures(tensors, monkeypatch)
    del tensors
    bundle = pull("vggish")
    assert bundle.outputs == {"pooled": 512, "embedding": 128}
    assert bundle.exports[0].max_difference <= 1e-4


# Finding


def run_folder(root, *, seed=0, with_bundle=True):
    """What of a training run is looked at when its model is wanted."""
    root.mkdir(parents=True)
    (root / "run.json").write_text("{}")
    if with_bundle:
        make_bundle(root / "bundle", seed=seed)
    model, _ = small_model(seed=seed)
    model.save_weights(root / "best.weights.h5")
    return root


@pytest.fixture(scope="module")
def made_run(tmp_path_factory):
    return run_folder(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(made_run, tmp_path):
    return shutil.copytree(made_run, tmp_path / "run")


def test_a_bundle_is_found_by_run_folder_and_description(run):
    for name in (run, str(run), run / "bundle", run / "bundle" / "bundle.json"):
        assert find_bundle(name).root == run / "bundle"


def test_a_registered_model_is_found_by_name(cache, no_runs):
    assert find_bundle("musicnn-mtt").root == cache / "models" / "musicnn-mtt"


def test_a_folder_comes_before_a_registered_model_of_its_name(run, no_runs):
    shutil.copytree(run, no_runs / "musicnn-mtt")
    assert find_bundle("musicnn-mtt").name == "small"


def test_a_remote_bundle_is_fetched(monkeypatch):
    monkeypatch.setattr("tagger.bundle.fetch.fetch_bundle", lambda uri: uri)
    assert find_bundle("gs://bucket/model") == "gs://bucket/model"


def test_nonsense_gives_one_line_with_the_names(no_runs):
    with pytest.raises(ModelError) as caught:
        find_bundle("no/such/model")
    assert str(caught.value) == (
        "no/such/model: no such folder, and no registered model "
        "(musicnn-mtt, vgg-mtt, musicnn-msd, vgg-msd, vggish); "
        "give the folder of a training run or of a bundle, or one of these names"
    )


@pytest.mark.parametrize("kind", ["empty folder", "file"])
def test_what_is_no_model_says_what_to_give(tmp_path, kind):
    path = tmp_path / "thing"
    path.mkdir() if kind == "empty folder" else path.write_text("x")
    with pytest.raises(ModelError, match="thing: no model bundle here; give the folder of one"):
        find_bundle(path)


def test_a_run_without_a_bundle_says_how_to_make_it(run):
    shutil.rmtree(run / "bundle")
    with pytest.raises(ModelError, match=f"has no exported model yet; .*: tagger export {run}"):
        find_bundle(run)
    (run / "best.weights.h5").unlink()
    with pytest.raises(ModelError, match="has no weights yet; let an epoch of its training end"):
        find_bundle(run)


def age(path, seconds):
    os.utime(path, (seconds, seconds))


def test_a_run_with_newer_weights_than_its_bundle_warns(run, capsys):
    small_model(seed=1)[0].save_weights(run / "best.weights.h5")
    age(run / "bundle" / "bundle.json", 1000)
    age(run / "best.weights.h5", 2000)
    assert find_bundle(run).name == "small"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {run}: has newer weights than its exported model; renew it: tagger export {run}"
    ]


def test_a_copied_run_does_not_warn(run, capsys):
    # Copying gives files the times in which they were copied.
    age(run / "bundle" / "bundle.json", 1000)
    age(run / "best.weights.h5", 2000)
    find_bundle(run)
    assert capsys.readouterr().err == ""


def made_of_names(folder, *, seconds, with_bundle=True):
    """What is looked at of a run when runs are listed."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "best.weights.h5").write_text("")
    age(folder / "best.weights.h5", seconds)
    if with_bundle:
        (folder / "bundle").mkdir()
        (folder / "bundle" / "bundle.json").write_text("{}")


def test_by_default_musicnn_answers_whatever_runs_there_are(no_runs, monkeypatch):
    made_of_names(no_runs / "runs" / "mine", seconds=1000)
    assert default_model() == "musicnn-mtt"
    monkeypatch.setenv("TAGGER_MODEL", "vgg-msd")
    assert default_model() == "vgg-msd"
    monkeypatch.setenv("TAGGER_MODEL", "")
    assert default_model() == "musicnn-mtt"


def test_the_newest_run_that_can_be_used_is_hinted_at(no_runs):
    runs = no_runs / "runs"
    assert newest_run() is None
    (runs / "started").mkdir(parents=True)
    (runs / "started" / "run.json").write_text("{}")
    made_of_names(runs / "training", seconds=9000, with_bundle=False)
    assert newest_run() is None
    made_of_names(runs / "older", seconds=1000)
    made_of_names(runs / "newer", seconds=2000)
    made_of_names(runs / "search" / "trials" / "0", seconds=5000)
    (runs / "search" / "optuna.jsonl").write_text("")
    assert newest_run() == Path("runs/newer")


def test_the_hint_names_a_run_and_a_config_chooses_one(no_runs, made_run, cache, command):
    shutil.copytree(made_run, no_runs / "runs" / "mine")
    soundfile.write("clip.wav", 0.1 * np.sin(np.arange(3 * RATE)), RATE)
    code, out, err = command("predict-tags", "clip.wav")
    assert code == 0
    assert "model: musicnn-mtt (yours: --model runs/mine)" in err
    Path("mine.yaml").write_text("run: {root: runs/mine}\n")
    code, out, err = command("predict-tags", "clip.wav", "--config", "mine.yaml")
    assert code == 0 and "tag 0" in out and "model: " not in err
    code, _, err = command("predict-tags", "clip.wav", "--config", "mine.yaml", "--model", "x")
    assert code == 2 and "give one of them" in err
