"""Promises of the front end and the backbone that know the tempo."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import RATE, noise

from preprocess.signal.features import FRONT_ENDS, ShortClipWarning
from tagger.base.errors import ConfigError
from tagger.config import Config

SECONDS = 20


def front_end(**params):
    return FRONT_ENDS.create("vggish_tempo", params)


def clicks(period_seconds, *, seconds=SECONDS):
    """Bursts of noise, equally far apart."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (noise(seconds) * np.exp(-15 * (t % period_seconds))).astype(np.float32)


CLICKS = clicks(0.5)


@pytest.mark.parametrize("bpm", [60, 90, 120, 150, 200])
def test_the_tempogram_is_highest_where_the_beat_repeats(bpm):
    made = front_end()
    tempogram = made.windows(clicks(60 / bpm))["tempogram"]
    lags = made.lags_seconds
    # Two, three, ... beats repeat as well: the first high lag is the beat.
    high = tempogram[10, :, 0] > 0.7 * tempogram[10, :, 0].max()
    assert lags[np.argmax(high)] == pytest.approx(60 / bpm, rel=0.08)


def test_a_faster_beat_is_the_same_pattern_moved_along_the_lags():
    made = front_end()
    slow, fast = (made.windows(clicks(period))["tempogram"][10, :, 0] for period in (0.8, 0.6))
    alike = [np.corrcoef(slow[steps:], fast[: len(fast) - steps])[0, 1] for steps in range(20)]
    lags = made.lags_seconds
    assert lags[np.argmax(alike)] / lags[0] == pytest.approx(0.8 / 0.6, rel=0.04)


def test_its_patches_are_those_of_vggish():
    plain = FRONT_ENDS.create("vggish", {}).windows(CLICKS)["log_mel"]
    np.testing.assert_array_equal(front_end().windows(CLICKS)["log_mel"], plain)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=8),
    params=st.sampled_from(
        [{}, {"context_seconds": 3.0}, {"hop_seconds": 0.3}, {"keep_partial": True}]
    ),
)
def test_blocks_of_any_size_give_the_windows_of_one_piece(sizes, params):
    made = front_end(**params)
    waveform = CLICKS[: sum(sizes)]
    ends = np.cumsum(sizes)
    blocks = [waveform[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        whole = made.windows(waveform)
    parts = list(made.stream([block for block in blocks if len(block)]))
    for name, shape in made.input_shapes.items():
        joined = np.concatenate([part[name] for part in parts])
        assert joined.shape[1:] == shape
        np.testing.assert_array_equal(joined, whole[name])


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(1, np.float32), np.zeros(RATE * 3, np.float32), noise(0.1), noise(1.0)],
    ids=["one sample", "silence", "a tenth of a second", "one second"],
)
def test_silence_and_clips_without_a_beat_give_finite_numbers(waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        tempogram = front_end().windows(waveform)["tempogram"]
    assert tempogram.shape == (max(1, len(waveform) // 15360), 90, 2)
    assert np.isfinite(tempogram).all()
    assert not tempogram[:, -1].any()


def test_a_clip_shorter_than_a_patch_is_warned_of_once():
    with pytest.warns(ShortClipWarning, match=r"clip of 0\.500 s") as caught:
        front_end().windows(noise(0.5))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_memory_does_not_grow_with_the_length_of_a_stream():
    def peak_of(minutes):
        tracemalloc.start()
        n_windows = sum(
            len(part["tempogram"])
            for part in front_end().stream(CLICKS for _ in range(minutes * 3))
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n_windows > minutes * 60
        return peak

    assert peak_of(8) < 1.2 * peak_of(2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_groups": 7}, "does not divide"),
        ({"onset_seconds": 0.001}, "onset_seconds"),
        ({"min_lag_seconds": 4.0}, "min_lag_seconds"),
        ({"context_seconds": 1.0}, "max_lag_seconds=3.0 must repeat within"),
    ],
)
def test_parameters_that_give_no_tempogram_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        front_end(**params)


# Backbone


def build(front_end_name, *, backbone_name="vggish_tempo", freeze="none"):
    from tagger.network.model import build_model

    content = Config().to_dict()
    content["front_end"] = {"name": front_end_name}
    backbone = {"name": backbone_name, "params": {"width": 1 / 32}, "freeze": freeze}
    content["model"]["backbone"] = backbone
    config = Config.model_validate(content)
    return build_model(config, config.make_front_end(), ["slow", "fast"])


def test_scores_depend_on_the_patch_and_on_the_tempogram():
    model = build("vggish_tempo")
    windows = {name: array[:1] for name, array in front_end().windows(CLICKS).items()}
    before = model.score_windows(windows)
    for name, array in windows.items():
        changed = windows | {name: np.roll(array, 5, axis=1)}
        assert (model.score_windows(changed) != before).all()


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory):
    """Weight files of models, by the name of their backbone."""
    folder = tmp_path_factory.mktemp("weights")
    models = {
        name: build("vggish_tempo", backbone_name=name) for name in ("vggish", "vggish_tempo")
    }
    for name, model in models.items():
        model.save_weights(folder / f"{name}.h5")
    return {name: (folder / f"{name}.h5", model.weights) for name, model in models.items()}


@pytest.mark.parametrize("name", ["vggish", "vggish_tempo"])
def test_weights_of_vggish_are_loaded_as_far_as_they_go_and_its_own_altogether(weights_of, name):
    from tagger.bundle.find_weights import load_backbone_weights

    path, theirs = weights_of[name]
    model = build("vggish_tempo")
    before = {name: variable.numpy() for name, variable in model.weights.items()}
    load_backbone_weights(model, str(path))
    for variable in model.embedding_model.weights:
        key = variable.name.removesuffix(":0")
        expected = theirs[key].numpy() if key in theirs else before[key]
        np.testing.assert_array_equal(variable.numpy(), expected, err_msg=key)
        assert (key in theirs) == (name == "vggish_tempo" or not key.startswith("tempo_"))


def test_a_frozen_branch_without_weights_is_refused(weights_of):
    from tagger.bundle.find_weights import load_backbone_weights

    load_backbone_weights(build("vggish_tempo", freeze="conv4_2"), str(weights_of["vggish"][0]))
    frozen = build("vggish_tempo", freeze="all")
    load_backbone_weights(frozen, str(weights_of["vggish_tempo"][0]))
    with pytest.raises(ConfigError, match=r"vggish\.h5: has no weights for the tempogram"):
        load_backbone_weights(frozen, str(weights_of["vggish"][0]))


def test_without_a_tempogram_it_names_the_front_end_that_has_one():
    with pytest.raises(ConfigError, match=r"needs the input 'tempogram'.*front_end.name=vggish_te"):
        build("vggish")
