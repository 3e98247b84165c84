import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_store import make_store, small_config

from preprocess import log_mel_patches
from tagger.errors import AudioError, ModelError
from tagger.predict import Tagger, expand_inputs
from tagger.train import train

RATE = 16000


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    make_store(folder / "store", n_clips=32)
    train(small_config(folder, "train.epochs=1"))
    return folder / "run"


@pytest.fixture(scope="module")
def tagger(run: Path) -> Tagger:
    return Tagger.load(run)


def test_a_file_gets_scores_a_taggram_and_times(tagger, tmp_path):
    soundfile.write(tmp_path / "clip.wav", tone(5), RATE)
    prediction = tagger.predict(tmp_path / "clip.wav")
    assert prediction.tags == ("tag 0", "tag 1", "tag 2")
    assert prediction.taggram.shape == (5, 3)
    np.testing.assert_allclose(prediction.times, [0, 0.96, 1.92, 2.88, 3.84])
    np.testing.assert_allclose(prediction.scores, prediction.taggram.mean(axis=0), atol=1e-6)


def test_the_front_end_of_prediction_is_that_of_training(tagger):
    patches = log_mel_patches(tone(3), RATE)
    scores = tagger._model.score_windows({"log_mel": patches})
    np.testing.assert_array_equal(tagger.predict_waveform(tone(3), RATE).taggram, scores)


def test_file_format_and_rate_hardly_change_the_scores(tagger, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(3), RATE)
    stereo = np.stack([tone(3, 44100)] * 2, axis=1)
    soundfile.write(tmp_path / "b.flac", stereo, 44100)
    one, other = (tagger.predict(tmp_path / name) for name in ("a.wav", "b.flac"))
    np.testing.assert_allclose(one.scores, other.scores, atol=0.02)


def test_long_files_are_scored_in_parts_with_the_same_result(tagger, monkeypatch):
    whole = tagger.predict_waveform(tone(12), RATE)
    monkeypatch.setattr("tagger.predict._BATCH_WINDOWS", 5)
    parts = tagger.predict_waveform(tone(12), RATE)
    np.testing.assert_allclose(whole.taggram, parts.taggram, atol=1e-5)


def test_top_ranks_cuts_and_filters(tagger):
    prediction = tagger.predict_waveform(tone(2), RATE)
    scores = [score for _, score in prediction.top()]
    assert scores == sorted(scores, reverse=True)
    assert len(prediction.top(2)) == 2
    assert prediction.top(threshold=1.0) == []


def test_a_short_clip_is_padded_and_says_so(tagger):
    prediction = tagger.predict_waveform(tone(0.5), RATE)
    assert prediction.padded
    assert prediction.taggram.shape == (1, 3)


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([0.0, np.nan]), np.array([np.inf])])
def test_unusable_waveforms_are_refused(tagger, bad):
    with pytest.raises(AudioError):
        tagger.predict_waveform(bad, RATE)


def test_float16_patches_change_clip_scores_by_less_than_a_thousandth(tagger):
    rng = np.random.default_rng(0)
    waveform = (rng.normal(0, 0.1, RATE * 10)).astype(np.float32)
    patches = log_mel_patches(waveform, RATE)
    exact = tagger._model.score_windows({"log_mel": patches})
    rounded = tagger._model.score_windows({"log_mel": patches.astype(np.float16)})
    assert np.abs(exact.mean(axis=0) - rounded.mean(axis=0)).max() < 1e-3


def test_folders_are_searched_for_audio(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/two.flac", "one.wav", ".hidden.wav", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = [path.name for path in expand_inputs([tmp_path])]
    assert found == ["two.flac", "one.wav"]


def test_a_folder_without_audio_is_one_bad_input_among_others(tagger, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.wav").write_bytes(b"x")
    inputs = [tmp_path / "empty", tmp_path / "one.wav"]
    assert list(expand_inputs(inputs)) == inputs
    with pytest.raises(AudioError, match="folder without audio files"):
        tagger.predict(tmp_path / "empty")


@pytest.mark.parametrize(("n_samples", "padded"), [(15_500, True), (15_600, False)])
def test_padding_is_told_alike_for_files_and_waveforms(tagger, tmp_path, n_samples, padded):
    samples = tone(2)[:n_samples]
    soundfile.write(tmp_path / "clip.wav", samples, RATE)
    assert tagger.predict(tmp_path / "clip.wav").padded is padded
    assert tagger.predict_waveform(samples, RATE).padded is padded


def test_a_run_of_an_older_front_end_is_refused(run, monkeypatch):
    from preprocess.features import FRONT_ENDS

    monkeypatch.setattr(FRONT_ENDS.get("vggish"), "version", 2)
    with pytest.raises(ModelError, match="another version of the front end 'vggish'"):
        Tagger.load(run)


def test_a_run_without_weights_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "best.weights.h5").unlink()
    with pytest.raises(ModelError, match="train first"):
        Tagger.load(tmp_path / "run")


def test_one_command_tags_good_files_and_names_every_bad_one(run, tmp_path):
    """Empty, non-audio, truncated, NaN and missing files stop nothing; the rest is tagged."""
    soundfile.write(tmp_path / "good.wav", tone(2), RATE)
    soundfile.write(tmp_path / "eight.wav", np.stack([tone(2)] * 8, axis=1), RATE)
    soundfile.write(tmp_path / "fast.wav", tone(2, 96000), 96000)
    soundfile.write(tmp_path / "short.wav", [0.5], RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(2 * RATE), RATE)
    bad = ["empty.wav", "text.mp3", "half.wav", "nan.wav", "missing.wav"]
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("no music here " * 50)
    whole = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(whole[: len(whole) // 2])
    nan = np.array([np.nan] * RATE, dtype=np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, RATE, subtype="FLOAT")
    good = ["good.wav", "eight.wav", "fast.wav", "short.wav", "silent.wav"]
    done = subprocess.run(
        [sys.executable, "-m", "tagger", "predict-tags", "--model", run, "--format", "json"]
        + [tmp_path / name for name in [*bad, *good]]
        + ["--taggram", tmp_path / "pictures"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 1
    tagged = [Path(json.loads(line)["path"]).name for line in done.stdout.splitlines()]
    assert tagged == good
    failures = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    assert len(failures) == len(bad)
    for name, line in zip(bad, failures, strict=True):
        assert name in line
        assert ";" in line  # the remedy
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "pictures").glob("*.png"))) == len(good)
    assert "short.wav: shorter than a patch" in done.stderr
