import builtins
import io
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from small_store import make_store

from preprocess.store.store import Store
from tagger.base.errors import ConfigError, StoreError
from tagger.config import StreamConfig
from tagger.train.evaluation_stream import evaluation_batches, prefetched_evaluation_batches
from tagger.train.stream import (
    TrainingStream,
    random_bags,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stream"), n_clips=40, n_windows=30)


def stream(store: Store, *, seed: int = 0, **settings: object) -> TrainingStream:
    rows = list(range(len(store)))
    config = StreamConfig(**{"batch_size": 8, **settings})
    return TrainingStream(store, rows, labels=store.index.labels, config=config, seed=seed)


def unequal(store: Store, **settings: object) -> TrainingStream:
    """Of clips of which two have a tag of their own, beside the one that all have."""
    labels = np.zeros((len(store), 3), np.uint8)
    labels[:, 0], labels[3, 1], labels[30, 2] = 1, 1, 1
    config = StreamConfig(**{"batch_size": 8, **settings})
    return TrainingStream(store, list(range(len(store))), labels=labels, config=config, seed=0)


def draws(streamed: TrainingStream, n: int, start: int = 0) -> list[tuple[int, int]]:
    """(clip, window) of the first examples, read off the marks in the patches."""
    marks = [float(e["log_mel"][0, 0, 0]) for e in islice(streamed.examples(start), n)]
    return [(int(mark + 1e-3), round(mark % 1 * 100)) for mark in marks]


def test_the_same_seed_gives_the_same_batches(store):
    first, second = (list(islice(stream(store, seed=3).batches(), 12)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.inputs["log_mel"], other.inputs["log_mel"])
        np.testing.assert_array_equal(one.labels, other.labels)


def test_another_seed_gives_other_draws(store):
    assert draws(stream(store, seed=0), 50) != draws(stream(store, seed=1), 50)


def test_a_clips_patches_differ_within_and_between_its_openings(store):
    seen = draws(stream(store, patches_per_clip=5), 40 * 5 * 4)
    windows_of_clip_7 = [window for clip, window in seen if clip == 7]
    assert len(windows_of_clip_7) == 20
    openings = [tuple(windows_of_clip_7[i : i + 5]) for i in range(0, 20, 5)]
    assert len(set(openings)) == 4
    assert all(len(set(opening)) == 5 for opening in openings)
    assert len(set(windows_of_clip_7)) >= 10


def test_every_patch_of_every_clip_is_drawn_in_the_long_run(store):
    assert len(set(draws(stream(store, patches_per_clip=6), 40 * 6 * 30))) == 40 * 30


def test_every_clip_is_seen_in_each_pass_equally_often(store):
    counts = Counter(clip for clip, _ in draws(stream(store, patches_per_clip=5), 40 * 5))
    assert counts == Counter(dict.fromkeys(range(40), 5))


def test_a_random_rate_still_shows_every_clip_and_keeps_its_mean(store):
    streamed = stream(store, rate=4.0)
    lengths = [int(streamed._draws(number).sum()) for number in range(20)]
    assert 3.7 < np.mean(lengths) / 40 < 4.3
    assert len({clip for clip, _ in draws(streamed, lengths[0])}) == 40


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_balance_draws_rare_tags_more_often_and_as_many_examples_in_all(tmp_path, balance):
    store = make_store(tmp_path, n_clips=40)
    labels = np.zeros((40, 2), np.uint8)
    labels[:30, 0], labels[30:32, 1] = 1, 1
    config = StreamConfig(batch_size=8, patches_per_clip=4, balance=balance)
    streamed = TrainingStream(store, list(range(40)), labels=labels, config=config, seed=0)
    passes = np.stack([streamed._draws(number) for number in range(200)])
    assert passes.min() >= 1
    means = passes.mean(axis=0)
    if balance == 0:
        assert (passes == 4).all()
        return
    # Of 2 clips instead of 30; those with no tag count as those with the common one.
    assert means[30:32].mean() / means[:30].mean() == pytest.approx(15, rel=0.05)
    assert means[32:].mean() == pytest.approx(means[:30].mean(), rel=0.05)
    assert means.mean() == pytest.approx(4, rel=0.02)
    assert (passes[0] != passes[1]).any()


@pytest.mark.parametrize("mix", [1, 4, 16])
def test_a_balanced_clip_gives_its_draws_a_few_at_a_time(store, mix):
    # Ten clips with a tag of their own: each gives one draw in thirty, a pass has 108 of them.
    labels = np.zeros((400, 12), np.uint8)
    labels[:, 0] = 1
    labels[np.arange(10) * 37, np.arange(10) + 1] = 1
    config = StreamConfig(batch_size=32, balance=0.5, mix_batches=mix)
    streamed = TrainingStream(store, list(range(40)) * 10, labels=labels, config=config, seed=5)
    largest = [b.labels[:, 1:].sum(axis=0).max() / 32 for b in islice(streamed.batches(), 200)]
    assert max(largest) < 0.5
    assert np.mean(largest) < 0.2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(32, 24), (30, 6), (20, 26), (38, 22), (26, 3), (25, 26)]),
        ({"mix_batches": 4}, [(15, 14), (15, 4), (15, 25), (15, 26), (39, 5), (39, 11)]),
        ({"rate": 3.0}, [(18, 26), (17, 25), (27, 9), (1, 2), (26, 21), (7, 14)]),
    ],
)
def test_a_run_of_an_earlier_release_goes_on_with_the_draws_that_it_had(store, settings, expected):
    assert draws(stream(store, **settings), 6, start=324) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate": 3.0},
        {"patches_per_bag": 4},
        {"balance": 0.5},
        {"balance": 1.0, "rate": 2.5},
        {"balance": 1.0, "mix_batches": 4},
    ],
)
@pytest.mark.parametrize("start", [0, 1, 37, 333])
def test_any_position_of_the_sequence_can_be_returned_to(store, settings, start):
    streamed = unequal(store, patches_per_clip=3, **settings)
    assert draws(streamed, start + 60)[start:] == draws(streamed, 60, start)


@pytest.mark.parametrize("start", [1, 6, 40])
def test_any_batch_of_a_balanced_and_mixed_sequence_can_be_returned_to(store, start):
    streamed = unequal(store, patches_per_clip=3, balance=0.7, mix_batches=4)
    straight = islice(streamed.batches(), start, start + 9)
    for one, other in zip(straight, streamed.batches(start), strict=False):
        np.testing.assert_array_equal(one.inputs["log_mel"], other.inputs["log_mel"])


def test_skipped_examples_are_not_read(store, monkeypatch):
    read = []
    monkeypatch.setattr(Store, "read", lambda self, row: read.append(row) or _windows(30))
    next(stream(store, patches_per_clip=3, n_active=5).examples(100))
    assert len(read) == 1


def _windows(n: int) -> dict[str, np.ndarray]:
    return {"log_mel": np.zeros((n, 96, 64), np.float32)}


def test_labels_belong_to_their_clips(store):
    for example in islice(stream(store).examples(), 200):
        clip = int(example["log_mel"][0, 0, 0] + 1e-3)
        np.testing.assert_array_equal(example["label"], store.index.labels[clip])


def test_no_more_clips_are_open_than_active(store):
    """Between its first and last draw of a pass a clip is open."""
    per_clip, n_active = 6, 5
    seen = [
        clip for clip, _ in draws(stream(store, patches_per_clip=per_clip, n_active=n_active), 240)
    ]
    first = {clip: seen.index(clip) for clip in seen}
    last = {clip: len(seen) - 1 - seen[::-1].index(clip) for clip in seen}
    most = max(sum(first[c] <= i <= last[c] for c in first) for i in range(len(seen)))
    assert 2 <= most <= n_active


def test_25863_clips_open_no_more_than_20_files(store, monkeypatch):
    """Only the clips that are active are read, and no file stays open."""
    n_clips = 25_863
    open_files, most_open, read = [], 0, set()
    original = io.open

    def counting_open(*args, **kwargs):
        nonlocal most_open
        file = original(*args, **kwargs)
        open_files.append(file)
        most_open = max(most_open, sum(not f.closed for f in open_files))
        return file

    class Large(Store):
        def __init__(self) -> None:
            self.root, self.spec, self.tags = store.root, store.spec, store.tags
            self.clips = [store.clips[row % len(store)] for row in range(n_clips)]

        def read(self, row: int):
            read.add(row)
            return super().read(row)

    monkeypatch.setattr(io, "open", counting_open)
    monkeypatch.setattr(builtins, "open", counting_open)
    large = Large()
    labels = np.zeros((n_clips, 3), np.uint8)
    config = StreamConfig(patches_per_clip=1000)
    streamed = TrainingStream(large, range(n_clips), labels=labels, config=config, seed=0)
    for _ in islice(streamed.batches(), 30):
        pass
    assert 10 < len(read) <= 20
    assert len(open_files) >= len(read)
    assert most_open <= 20


def test_batches_mix_clips_as_20_active_streamers_should(store):
    """20 equally likely streamers put 20 (1 - 0.95^32) = 16.1 distinct clips into a batch of 32.

    Clips that are replaced within the batch add to that.
    """
    batches = islice(stream(store, batch_size=32, patches_per_clip=8).batches(), 60)
    distinct = [len({int(m + 1e-3) for m in b.inputs["log_mel"][:, 0, 0, 0]}) for b in batches]
    assert 15 < np.mean(distinct) < 22


def test_tf_data_delivers_the_same_batches(store):
    streamed = stream(store)
    for plain, tensors in zip(
        islice(streamed.batches(), 5), islice(streamed.prefetched(), 5), strict=True
    ):
        np.testing.assert_array_equal(plain.inputs["log_mel"], tensors.inputs["log_mel"].numpy())
        np.testing.assert_array_equal(plain.labels, tensors.labels.numpy())


def test_a_damaged_pickle_ends_the_stream_with_its_name(tmp_path):
    damaged = make_store(tmp_path, n_clips=8, n_windows=3)
    path = damaged.root / damaged.clips[2].file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=path.name):
        for _ in islice(stream(damaged).prefetched(), 50):
            pass


def test_an_empty_training_part_is_refused(store):
    with pytest.raises(ConfigError, match="no clips to train on"):
        TrainingStream(store, [], labels=np.zeros((0, 3), np.uint8), config=StreamConfig(), seed=0)


def test_fewer_clips_than_active_streamers_still_stream(tmp_path):
    tiny = make_store(tmp_path, n_clips=4, n_windows=3)
    assert len(draws(stream(tiny), 100)) == 100


def test_an_epoch_is_as_many_examples_as_clips_by_default(store):
    assert stream(store, batch_size=8).steps_per_epoch == 5
    assert stream(store, batch_size=8, steps_per_epoch=99).steps_per_epoch == 99


def test_bags_hold_different_patches_of_one_clip(store):
    for example in islice(stream(store, patches_per_bag=6).examples(), 50):
        marks = example["log_mel"][:, 0, 0]
        assert len(set(marks.astype(int))) == 1
        assert len(set(marks)) == 6


def test_random_bags_use_every_window_before_any_again():
    bags = random_bags(np.random.default_rng(0), 10, n_bags=5, bag_size=4)
    assert sorted(bags.ravel().tolist()) == sorted(list(range(10)) * 2)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 64, 5000])
def test_evaluation_is_exhaustive_and_in_order(store, batch_size):
    rows = [5, 3, 9]
    marks, positions = [], []
    for windows, where in evaluation_batches(store, rows, batch_size=batch_size):
        assert len(windows["log_mel"]) <= batch_size
        marks += windows["log_mel"][:, 0, 0].tolist()
        positions += where.tolist()
    expected = [row + window / 100 for row in rows for window in range(30)]
    np.testing.assert_allclose(marks, expected, atol=1e-4)
    assert positions == [position for position in range(3) for _ in range(30)]


def test_evaluation_through_tf_data_is_the_same(store):
    plain = list(evaluation_batches(store, [1, 2], batch_size=16))
    tensors = list(prefetched_evaluation_batches(store, [1, 2], batch_size=16, prefetch=2))
    assert len(plain) == len(tensors)
    for (windows, where), (windows_tf, where_tf) in zip(plain, tensors, strict=True):
        np.testing.assert_array_equal(windows["log_mel"], windows_tf["log_mel"].numpy())
        np.testing.assert_array_equal(where, where_tf)


def test_float16_stores_stream_as_float32(tmp_path):
    from preprocess.store.store import StoredClip, StoreSpec, StoreWriter, write_clip

    small = make_store(tmp_path / "float32", n_clips=4, n_windows=3)
    spec = StoreSpec(
        small.spec.front_end, small.spec.front_end_hash, small.spec.input_shapes, "float16"
    )
    writer = StoreWriter(tmp_path / "float16", spec, tags=small.tags)
    for row, clip in enumerate(small.clips):
        written = write_clip(
            writer.root,
            clip.record,
            windows=small.read(row),
            label=small.index.labels[row],
            dtype="float16",
        )
        writer.add(StoredClip(clip.record, source_bytes=1, source_mtime_ns=1, **written))
    writer.close(small.index)
    half = Store(Path(writer.root))
    assert half.read(0)["log_mel"].dtype == np.float16
    batch = next(stream(half, batch_size=2).batches())
    assert batch.inputs["log_mel"].dtype == np.float32
