"""Promises of what is done to training examples: gain, equaliser, masks; drawn by step and seed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from signals import noise
from small_store import make_store, small_config

from preprocess.signal.features import FRONT_ENDS
from tagger.base.errors import ConfigError
from tagger.config import AugmentConfig
from tagger.train.augment import apply_plan, augmented_inputs, spectrogram_plans
from tagger.train.loop import train

FRONT_END = FRONT_ENDS.create("vggish", {})
# Of a magnitude, as the natural logarithm that plans hold.
NEPERS_PER_DB = math.log(10) / 20
ALL = AugmentConfig(gain_db=6, equaliser_db=3, mask_frames=20, mask_bands=10)


def stream(seed, *, batch_size=8, bag=2):
    config = SimpleNamespace(patches_per_bag=bag)
    return SimpleNamespace(seed=seed, batch_size=batch_size, config=config)


def plan(config, *, step=0, seeds=(0,), front_end=FRONT_END, **of_stream):
    streams = [stream(seed, **of_stream) for seed in seeds]
    return spectrogram_plans(streams, step, config=config, front_end=front_end)["log_mel"]


def test_nothing_is_planned_where_nothing_is_asked_for():
    assert augmented_inputs(AugmentConfig(), FRONT_END) == {}
    assert spectrogram_plans([stream(0)], 0, config=AugmentConfig(), front_end=FRONT_END) == {}


def test_draws_differ_between_steps_seeds_examples_and_patches_and_repeat_with_all_of_them():
    level = plan(ALL)[0]
    np.testing.assert_array_equal(level, plan(ALL)[0])
    assert (level != plan(ALL, step=1)[0]).any()
    assert (level != plan(ALL, seeds=(1,))[0]).any()
    rows = level.reshape(16, 64)
    assert len(np.unique(rows, axis=0)) == 16


def test_of_several_shares_each_has_the_draws_that_it_has_alone():
    together = plan(ALL, seeds=(3, 4))
    alone = zip(plan(ALL, seeds=(3,)), plan(ALL, seeds=(4,)), strict=True)
    for part, both in zip(together, alone, strict=True):
        np.testing.assert_array_equal(part, np.concatenate(both))


def at_level(front_end, patches, *, db):
    """Log-mel patches [shape=(n, n_frames, n_bands)] with another level in all bands."""
    scale = front_end.log_scales["log_mel"]
    n, n_frames, n_bands = patches.shape
    growth = np.full((n, 1, n_bands), math.log(10) * db / scale.db_per_decade, np.float32)
    kept = [np.ones((n, 1, length), np.float32) for length in (n_frames, n_bands)]
    return apply_plan(patches[:, np.newaxis], (growth, *kept), scale).numpy()[:, 0]


@pytest.mark.parametrize("name", ["vggish", "vggish_tempo", "musicnn"])
@pytest.mark.parametrize("amplitude", [0.3, 1e-3, 1e-5])
@pytest.mark.parametrize("db", [6, -6, 30])
def test_a_gain_is_what_louder_audio_gives_however_faint(name, amplitude, db):
    front_end = FRONT_ENDS.create(name, {})
    waveform = noise(7, amplitude=amplitude)
    before, louder = (
        front_end.windows(waveform * np.float32(gain))["log_mel"] for gain in (1, 10 ** (db / 20))
    )
    found = at_level(front_end, before, db=db)
    np.testing.assert_allclose(found, louder, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["vggish", "vggish_tempo", "musicnn"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_gain_leaves_silence_as_it_is(name, dtype):
    front_end = FRONT_ENDS.create(name, {})
    # As a store holds it.
    silence = front_end.windows(np.zeros(16000 * 7, np.float32))["log_mel"]
    silence = silence.astype(dtype).astype(np.float32)
    for db in (6, -20, 60):
        np.testing.assert_allclose(at_level(front_end, silence, db=db), silence, rtol=0, atol=1e-5)


def test_gains_reach_as_far_as_asked_for_and_are_the_same_in_all_bands():
    level, *_ = plan(AugmentConfig(gain_db=6), batch_size=2000, bag=1)
    db = level / NEPERS_PER_DB
    assert np.ptp(db, axis=-1).max() < 1e-5
    assert -6 <= db.min() < -5.9 and 5.9 < db.max() <= 6


def test_an_equaliser_is_a_smooth_curve_over_the_bands():
    level, *_ = plan(AugmentConfig(equaliser_db=4), batch_size=4000, bag=1)
    db = level[:, 0] / NEPERS_PER_DB
    # Its outer points are drawn themselves.
    assert db[:, 0].std() == pytest.approx(4, rel=0.05)
    assert db[:, -1].std() == pytest.approx(4, rel=0.05)
    assert abs(np.corrcoef(db[:, 0], db[:, -1])[0, 1]) < 0.05
    assert np.abs(np.diff(db, n=2, axis=1)).max(axis=1).mean() < db.std()


def test_masks_are_one_stretch_each_and_as_long_as_asked_for_at_most():
    _, frames, bands = plan(ALL, batch_size=2000, bag=1)
    for kept, longest in ((frames, 20), (bands, 10)):
        masked = 1 - kept[:, 0]
        lengths = masked.sum(axis=1)
        assert set(np.unique(lengths)) == set(range(longest + 1))
        edges = np.abs(np.diff(np.pad(masked, ((0, 0), (1, 1))), axis=1)).sum(axis=1)
        assert set(np.unique(edges)) == {0, 2}
        # Every place is hidden now and then, the first and the last as well.
        assert (masked.sum(axis=0) > 0).all()


def test_masked_places_hold_the_mean_of_the_patch_whose_level_was_changed():
    patches = np.random.default_rng(0).normal(size=(8, 2, 96, 64)).astype(np.float32)
    scale = augmented_inputs(ALL, FRONT_END)["log_mel"]
    level, frames, bands = plan(ALL)
    found = apply_plan(patches, (level, frames, bands), scale).numpy()
    hidden = (frames[..., np.newaxis] * bands[..., np.newaxis, :]) == 0
    nothing_hidden = (level, np.ones_like(frames), np.ones_like(bands))
    louder = apply_plan(patches, nothing_hidden, scale).numpy()
    means = np.broadcast_to(louder.mean(axis=(2, 3), keepdims=True), patches.shape)
    np.testing.assert_allclose(found[hidden], means[hidden], atol=1e-5)
    np.testing.assert_array_equal(found[~hidden], louder[~hidden])
    assert hidden.any() and not hidden.all()
    assert np.abs(louder - patches).max() > 0.1


def test_masks_alone_leave_what_they_do_not_hide_as_it_is():
    config = AugmentConfig(mask_frames=20, mask_bands=10)
    patches = np.random.default_rng(0).normal(size=(8, 2, 96, 64)).astype(np.float32)
    level, frames, bands = plan(config)
    scale = augmented_inputs(config, FRONT_END)["log_mel"]
    found = apply_plan(patches, (level, frames, bands), scale).numpy()
    shown = (frames[..., np.newaxis] * bands[..., np.newaxis, :]) == 1
    np.testing.assert_array_equal(found[shown], patches[shown])
    assert not shown.all()


def test_masks_larger_than_a_patch_are_refused():
    with pytest.raises(ConfigError, match="more than the 96 frames x 64 bands of log_mel"):
        augmented_inputs(AugmentConfig(mask_bands=65), FRONT_END)


def test_what_cannot_be_augmented_is_refused_before_there_is_a_run(tmp_path):
    make_store(tmp_path / "store", n_clips=32, n_windows=2)
    with pytest.raises(ConfigError, match="mask_bands=65"):
        train(small_config(tmp_path, "augment.mask_bands=65"))
    assert not (tmp_path / "run").exists()


def test_a_front_end_without_spectrograms_is_refused():
    other = SimpleNamespace(name="vectors", log_scales={})
    with pytest.raises(ConfigError, match="'vectors' gives no spectrogram"):
        augmented_inputs(ALL, other)
