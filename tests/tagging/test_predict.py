"""Promises of prediction in Python: files and waveforms of any length to tags and embeddings."""

import gc
import json
import os
import shutil
import threading
import warnings

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signals import RATE, noise, sine
from small_model import small_run
from threadpoolctl import threadpool_limits

import tagger as package
from preprocess import log_mel_patches
from tagger.base.errors import AudioError, ModelError
from tagger.base.files import sha256_of_file
from tagger.bundle.light_model import LightModel
from tagger.bundle.read import Bundle
from tagger.bundle.runtime import Runtime
from tagger.tagging import top_tags as predict
from tagger.tagging.tagger import Tagger
from tagger.tagging.top_tags import top_tags


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory)


@pytest.fixture(scope="module")
def tagger(run):
    return Tagger.load(run, jobs=2)


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    """Files of many lengths, from a few samples to more than a block of the decoder."""
    folder = tmp_path_factory.mktemp("lengths")
    seconds = [0.01, 0.5, 0.97, 1, 2.3, 3, 5, 8, 13, 21, 34, 70]
    paths = []
    for number, length in enumerate(seconds):
        paths.append(folder / f"{number}.wav")
        sf.write(paths[-1], noise(length, seed=number), RATE)
    return paths


def bundle_with(run, folder, **changes):
    """A copy of the bundle whose JSON files have other content; checksums are right."""
    shutil.copytree(run / "bundle", folder)
    description = json.loads((folder / "bundle.json").read_text())
    for name, content in changes.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content))
        description["files"][path.name] = sha256_of_file(path)
    (folder / "bundle.json").write_text(json.dumps(description))
    return folder


def write(path, samples, rate=RATE):
    sf.write(path, samples, rate)
    return path


def scores_in_one_piece(tagger, waveform):
    # On several threads matrix products round differently.
    with threadpool_limits(limits=1):
        patches = log_mel_patches(waveform, RATE)
    return tagger.model.make_scorer(["scores"])({"log_mel": patches})["scores"]


def same(one, other):
    np.testing.assert_array_equal(one.taggram, other.taggram)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.times, other.times)
    assert (one.seconds, one.padded, one.tags) == (other.seconds, other.padded, other.tags)


# One clip


def test_a_file_gets_scores_a_taggram_and_times(tagger, tmp_path):
    path = write(tmp_path / "clip.wav", sine(440, 5))
    prediction = tagger.predict(path)
    assert prediction.path == str(path)
    assert prediction.tags == ("tag 0", "tag 1", "tag 2")
    assert (prediction.taggram.shape, prediction.taggram.dtype) == ((5, 3), np.float32)
    np.testing.assert_allclose(prediction.times, [0, 0.96, 1.92, 2.88, 3.84])
    np.testing.assert_allclose(prediction.scores, prediction.taggram.mean(axis=0), atol=1e-6)
    assert (prediction.seconds, prediction.padded) == (5, False)
    assert prediction.window_seconds == pytest.approx(0.975, abs=0.02)


def test_the_front_end_of_prediction_is_that_of_training(tagger):
    waveform = noise(3)
    np.testing.assert_array_equal(
        tagger.predict(waveform, RATE).taggram, scores_in_one_piece(tagger, waveform)
    )


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_waveform_and_its_file_get_the_same_scores(tagger, tmp_path, rate):
    samples = np.stack([noise(40, rate=rate), sine(300, 40, rate=rate, amplitude=0.2)], axis=1)
    path = write(tmp_path / "clip.wav", samples, rate)
    stored, _ = sf.read(path, dtype="float32")
    of_file, of_waveform = tagger.predict(path), tagger.predict(stored, rate)
    assert of_waveform.path == ""
    np.testing.assert_allclose(of_file.taggram, of_waveform.taggram, atol=1e-5)
    np.testing.assert_array_equal(of_file.times, of_waveform.times)
    assert of_file.seconds == of_waveform.seconds


def test_format_rate_and_channels_hardly_change_the_scores(tagger, tmp_path):
    one = tagger.predict(write(tmp_path / "a.wav", sine(440, 3, amplitude=0.3)))
    stereo = np.stack([sine(440, 3, rate=44100, amplitude=0.3)] * 2, axis=1)
    other = tagger.predict(write(tmp_path / "b.flac", stereo, 44100))
    np.testing.assert_allclose(one.scores, other.scores, atol=0.02)


def test_a_long_file_has_in_blocks_the_scores_of_one_piece(tagger, tmp_path):
    # The decoder's blocks are of half a minute.
    path = write(tmp_path / "long.wav", noise(200))
    stored, _ = sf.read(path, dtype="float32")
    whole = scores_in_one_piece(tagger, stored)
    np.testing.assert_array_equal(tagger.predict(path).taggram, whole)


def test_only_the_middle_of_a_file_is_tagged_with_times_within_the_file(tagger, tmp_path):
    samples = noise(20)
    path = write(tmp_path / "clip.wav", samples)
    stored, _ = sf.read(path, dtype="float32")
    middle = tagger.predict(path, middle_seconds=4)
    part = tagger.predict(stored[8 * RATE : 12 * RATE], RATE)
    np.testing.assert_array_equal(middle.taggram, part.taggram)
    np.testing.assert_allclose(middle.times, 8 + part.times)
    assert middle.seconds == 4


def test_the_middle_of_a_shorter_file_is_all_of_it(tagger, tmp_path):
    path = write(tmp_path / "clip.wav", noise(3))
    same(tagger.predict(path, middle_seconds=30), tagger.predict(path))


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_middle_that_is_no_length_is_a_mistake_of_the_caller(tagger, tmp_path, seconds):
    path = write(tmp_path / "clip.wav", noise(3))
    with pytest.raises(ValueError, match="middle_seconds must be positive"):
        tagger.predict(path, middle_seconds=seconds)


@pytest.mark.parametrize(("n_samples", "padded"), [(1, True), (15_500, True), (15_600, False)])
def test_padding_is_told_alike_for_files_and_waveforms(tagger, tmp_path, n_samples, padded):
    samples = noise(2)[:n_samples]
    of_file = tagger.predict(write(tmp_path / "clip.wav", samples))
    of_waveform = tagger.predict(samples, RATE)
    assert of_file.padded is of_waveform.padded is padded
    assert of_file.taggram.shape == of_waveform.taggram.shape == (1, 3)
    assert of_file.seconds == n_samples / RATE


def test_prediction_raises_no_python_warning(tagger, tmp_path):
    path = write(tmp_path / "clip.wav", noise(0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger.predict(path)
        tagger.predict(noise(0.2), RATE)


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([0.0, np.nan]), np.array([np.inf])])
def test_unusable_waveforms_are_refused(tagger, bad):
    with pytest.raises(AudioError):
        tagger.predict(bad, RATE)


def test_a_waveform_without_its_rate_is_a_mistake_of_the_caller(tagger):
    with pytest.raises(ValueError, match="needs its sample_rate"):
        tagger.predict(noise(1))


def test_a_missing_file_is_refused_by_name(tagger, tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        tagger.predict(tmp_path / "gone.wav")


def test_top_ranks_cuts_and_filters(tagger):
    prediction = tagger.predict(noise(2), RATE)
    ranked = prediction.top()
    assert [tag["score"] for tag in ranked] == sorted(map(float, prediction.scores), reverse=True)
    assert prediction.top(2) == ranked[:2]
    assert prediction.top(threshold=ranked[1]["score"]) == ranked[:2]
    assert prediction.top(threshold=1.1) == []


# Many clips


def test_many_files_come_in_order_as_if_each_were_alone(tagger, lengths):
    found = list(tagger.predict_many(lengths))
    assert [prediction.path for prediction in found] == [str(path) for path in lengths]
    for path, prediction in zip(lengths, found, strict=True):
        same(prediction, tagger.predict(path))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chosen=st.lists(st.integers(0, 11), min_size=1, max_size=14), jobs=st.integers(1, 4))
def test_neither_company_nor_jobs_change_a_bit_of_a_result(run, lengths, chosen, jobs):
    alone = _alone(run, lengths)
    made = Tagger.load(run, jobs=jobs)
    found = made.predict_many([lengths[number] for number in chosen])
    for number, prediction in zip(chosen, found, strict=True):
        same(prediction, alone[number])


_results = {}


def _alone(run, lengths):
    if run not in _results:
        single = Tagger.load(run, jobs=1)
        _results[run] = [single.predict(path) for path in lengths]
    return _results[run]


def test_a_file_given_twice_is_tagged_twice(tagger, lengths):
    one, other = tagger.predict_many([lengths[4], lengths[4]])
    same(one, other)


def test_no_files_give_no_predictions(tagger):
    assert list(tagger.predict_many([])) == []


def test_files_that_fail_are_left_out_and_told_when_their_turn_comes(tagger, tmp_path):
    good = [write(tmp_path / f"{number}.wav", noise(1)) for number in range(2)]
    paths = [tmp_path / "gone.wav", good[0], tmp_path, good[1]]
    told = []
    found = tagger.predict_many(paths, on_error=lambda path, error: told.append((path, str(error))))
    first = next(found)
    assert [path for path, _ in told] == [str(paths[0])]
    assert [prediction.path for prediction in (first, *found)] == [str(path) for path in good]
    assert [path for path, _ in told] == [str(paths[0]), str(paths[2])]
    assert "no such file" in told[0][1] and "folder without audio files" in told[1][1]


def test_files_that_fail_are_warnings_at_the_line_that_asked(tagger, tmp_path):
    good = write(tmp_path / "good.wav", noise(1))
    with pytest.warns(UserWarning, match=r"gone\.wav: no such file; check the path") as caught:
        (found,) = tagger.predict_many([tmp_path / "gone.wav", good])
    assert found.path == str(good)
    assert [warning.filename for warning in caught] == [__file__]


def test_what_fails_comes_in_its_place_where_that_is_asked_for(tagger, tmp_path):
    good = write(tmp_path / "good.wav", noise(1))
    (bad, error), (path, found) = tagger.attempt_many([tmp_path / "gone.wav", good])
    assert (bad, path) == (str(tmp_path / "gone.wav"), str(good))
    assert isinstance(error, AudioError) and found.taggram.shape == (1, 3)


@pytest.mark.parametrize("verb", ["predict_many", "attempt_many", "embed_many"])
def test_an_iterator_that_is_closed_half_way_leaves_no_thread_and_no_file(tagger, lengths, verb):
    # A tagger keeps its models open; files that other tests have left must not be closed meanwhile.
    list(tagger.predict_many(lengths * 3))
    gc.collect()
    before = threading.enumerate()
    files = _open_files()
    results = getattr(tagger, verb)(lengths * 3)
    next(results)
    results.close()
    assert threading.enumerate() == before
    assert _open_files() == files


def _open_files():
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):  # noqa: PTH112
        pytest.skip("lists open files as Linux does")
    return len(os.listdir(folder))  # noqa: PTH208


def test_a_model_is_read_once_for_any_number_of_calls(run, lengths, monkeypatch):
    made = []

    class Counted(Runtime):
        def __init__(self, *arguments, **options):
            made.append(None)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("tagger.bundle.light_model.Runtime", Counted)
    loaded = Tagger.load(run, jobs=2)
    for _ in range(3):
        list(loaded.predict_many(lengths))
        loaded.predict(noise(1), RATE)
    assert 1 <= len(made) <= 2


def test_a_tagger_serves_several_threads_at_once(tagger, lengths):
    wanted = list(tagger.predict_many(lengths))
    found = {}

    def ask(number):
        found[number] = list(tagger.predict_many(lengths))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for results in found.values():
        for one, other in zip(results, wanted, strict=True):
            same(one, other)


# Embeddings


def test_an_embedding_has_a_vector_for_each_window(tagger, tmp_path):
    path = write(tmp_path / "clip.wav", noise(5))
    embedding = tagger.embed(path)
    assert (embedding.path, embedding.layer) == (str(path), "penultimate")
    size = tagger.model.output_sizes["penultimate"]
    assert (embedding.values.shape, embedding.values.dtype) == ((5, size), np.float32)
    np.testing.assert_allclose(embedding.times, 0.96 * np.arange(5))
    np.testing.assert_allclose(embedding.mean(), embedding.values.mean(axis=0), rtol=1e-5)


def test_embeddings_of_many_files_are_those_of_each_alone(tagger, lengths):
    for name in tagger.embeddings:
        found = list(tagger.embed_many(lengths, layer=name))
        assert [embedding.path for embedding in found] == [str(path) for path in lengths]
        for path, embedding in zip(lengths, found, strict=True):
            np.testing.assert_array_equal(embedding.values, tagger.embed(path, layer=name).values)


def test_an_embedding_of_the_middle_has_times_within_the_file(tagger, tmp_path):
    embedding = tagger.embed(write(tmp_path / "clip.wav", noise(20)), middle_seconds=4)
    np.testing.assert_allclose(embedding.times, 8 + 0.96 * np.arange(4))


def test_a_layer_that_the_model_does_not_have_is_refused_with_those_it_has(tagger):
    for ask in (
        lambda: tagger.embed(noise(1), RATE, layer="first"),
        lambda: list(tagger.embed_many(["a.wav"], layer="first")),
        lambda: tagger.embed(noise(1), RATE, layer="scores"),
    ):
        with pytest.raises(ModelError, match=r"has no embedding '\w+'; choose one of .*penultim"):
            ask()


def test_a_model_without_tags_says_so_and_still_embeds(run, monkeypatch):
    loaded = Tagger.load(run, jobs=1)
    monkeypatch.setattr(loaded, "tags", ())
    for ask in (
        lambda: loaded.predict(noise(1), RATE),
        lambda: list(loaded.predict_many(["a.wav"])),
        lambda: list(loaded.attempt_many([])),
    ):
        with pytest.raises(
            ModelError, match=r"gives embeddings \(.*penultimate.*\), not tags; use"
        ):
            ask()
    assert len(loaded.embed(noise(1), RATE).values) == 1


# Models


def test_thresholds_are_those_of_the_bundle(run, tmp_path):
    values = [0.25, None, 0.75]
    bundle = bundle_with(run, tmp_path / "bundle", thresholds={"thresholds": values})
    prediction = Tagger.load(bundle).predict(noise(1), RATE)
    np.testing.assert_array_equal(prediction.thresholds, np.array([0.25, np.nan, 0.75], "f4"))


def test_a_bundle_without_thresholds_has_none(run, tmp_path):
    bundle = bundle_with(run, tmp_path / "bundle", thresholds={"thresholds": [None] * 3})
    assert Tagger.load(bundle).predict(noise(1), RATE).thresholds is None


def test_a_run_and_its_bundle_are_the_same_model(run, tagger):
    same(Tagger.load(run / "bundle").predict(noise(3), RATE), tagger.predict(noise(3), RATE))


def test_a_model_of_an_older_front_end_is_refused(run, monkeypatch):
    from preprocess.signal.features import FRONT_ENDS

    monkeypatch.setattr(FRONT_ENDS.get("vggish"), "version", 2)
    with pytest.raises(ModelError, match="another version of the front end 'vggish'"):
        Tagger.load(run)


def test_a_quantization_that_was_not_exported_is_refused_with_the_remedy(run):
    with pytest.raises(ModelError, match=r"tagger export .* --quantize dynamic"):
        Tagger.load(run, quantize="dynamic")


def test_a_model_file_that_has_changed_is_refused(run, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    with (tmp_path / "bundle" / "model.tflite").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"model\.tflite: damaged or changed"):
        Tagger.load(tmp_path / "bundle")


def test_the_best_tags_of_a_file_need_one_call(run, tagger, tmp_path):
    path = write(tmp_path / "clip.wav", noise(2))
    best = [(tag["label"], tag["score"]) for tag in tagger.predict(path).top(2)]
    assert top_tags(path, n=2, model=run) == best
    best = [(tag["label"], tag["score"]) for tag in tagger.predict(noise(2), RATE).top(10)]
    assert package.top_tags(noise(2), RATE, model=run) == best


def test_the_model_of_the_best_tags_is_loaded_once(run, monkeypatch):
    loaded = []

    def load(model):
        loaded.append(model)
        return Tagger(LightModel(Bundle(run / "bundle")))

    predict._loaded.cache_clear()
    monkeypatch.setattr(Tagger, "load", load)
    monkeypatch.setenv("TAGGER_MODEL", "first")
    for _ in range(3):
        top_tags(noise(1), RATE)
    assert loaded == ["first"]
    monkeypatch.setenv("TAGGER_MODEL", "second")
    top_tags(noise(1), RATE)
    assert loaded == ["first", "second"]
    predict._loaded.cache_clear()


def test_the_model_may_be_named_by_the_environment(run, tagger, monkeypatch):
    monkeypatch.setenv("TAGGER_MODEL", str(run))
    same(Tagger.load().predict(noise(1), RATE), tagger.predict(noise(1), RATE))


def test_the_package_offers_what_it_names():
    assert {
        name: getattr(package, name).__name__ for name in package.__all__ if name[0] != "_"
    } == {name: name for name in package.__all__ if name[0] != "_"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018
