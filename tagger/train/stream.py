"""Streams of training and evaluation batches; the only place that knows pescador.

Training draws random patches: one pescador streamer per clip, of which `n_active` are open at a
time; with ``mix_batches`` above 1 a streamer per open place, which takes one clip after another,
and a shuffle of neighbouring batches. The draws form one endless sequence that the seed alone
decides, made of passes in each of which every clip is open exactly once, or several times if it is
to give more draws than others. Any position of it can be returned to, so that a resumed run sees
what an uninterrupted one would have seen.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pescador

from preprocess.store.shards import Shard, open_shard
from preprocess.store.store import Store
from tagger.base.errors import ConfigError
from tagger.config import StreamConfig

Example = dict[str, npt.NDArray[Any]]
Bag = npt.NDArray[np.int64]
# Examples as columns: arrays whose first axis counts them.
Rows = dict[str, npt.NDArray[Any]]
# Opens the clip of a position; what it gives takes bags (n_bags, bag_size) out of it.
OpenClip = Callable[[int], Callable[[Bag], Rows]]
_LABEL, _CLIP, _WINDOW = "label", "clip", "window"
# Batches whose numbers go to TensorFlow together: each hand-over takes as long as some ten draws.
_BATCHES_AT_ONCE = 16
# Threads that gather batches out of a shard.
_GATHERERS = max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class Batch:
    """A batch of bags for training.

    Parameters
    ----------
    inputs : dict of str to array [shape=(batch_size, patches_per_bag, *input_shapes[name])]
        As float32.
    labels : array [shape=(batch_size, n_tags), dtype=float32]
        1 where a clip carries a tag.
    """

    inputs: dict[str, Any]
    labels: Any


def random_bags(
    rng: np.random.Generator, n_windows: int, *, n_bags: int, bag_size: int
) -> npt.NDArray[np.intp]:
    """Window numbers of `n_bags` bags of one clip [shape=(n_bags, bag_size)].

    Every window of the clip comes once before any comes again.
    """
    needed = n_bags * bag_size
    n_rounds = -(-needed // n_windows)
    order = np.concatenate([rng.permutation(n_windows) for _ in range(n_rounds)])
    return order[:needed].reshape(n_bags, bag_size)


def clip_weights(labels: npt.NDArray[np.float32], *, balance: float) -> npt.NDArray[np.float64]:
    """How often each clip is drawn, compared with the mean.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags)]
        1 where a clip carries a tag.
    balance : float
        Exponent of the rarity of a clip's rarest tag: 0 draws all clips alike, 1 those with a tag
        of one clip in a hundred ten times as often as those with none but of one in ten.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=float64]
        Their mean is 1.
    """
    n_positive = labels.sum(axis=0, dtype=np.float64)
    rarity = len(labels) / np.maximum(1, n_positive)
    # A clip without tags counts as one with the most frequent tag.
    commonest = rarity[n_positive > 0].min() if n_positive.any() else 1.0
    weights = np.where(labels != 0, rarity, 0).max(axis=1, initial=commonest) ** balance
    return weights / weights.mean()


class TrainingStream:
    """Random batches of a store's clips, without end.

    Parameters
    ----------
    store : Store
        Where the patches are.
    rows : sequence of int
        Which of its clips to stream.
    labels : np.ndarray [shape=(len(rows), n_tags), dtype=uint8]
        Their labels.
    config : StreamConfig
        How to sample. Its batches and steps are those of all shares together.
    seed : int
        Decides every draw.
    share, n_shares : int
        Which part of the clips, and of every batch, to stream, of how many. No two parts have a
        clip in common; side by side they make whole batches, wherever each of them is read.

    Raises
    ------
    ConfigError
        If there are no clips, or clips or batch cannot be dealt to so many.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int],
        *,
        labels: npt.NDArray[np.uint8],
        config: StreamConfig,
        seed: int,
        share: int = 0,
        n_shares: int = 1,
    ) -> None:
        if len(rows) == 0:
            raise ConfigError(
                "no clips to train on; check data.split and that the store holds the training clips"
            )
        if config.batch_size % n_shares or len(rows) < n_shares:
            raise ConfigError(
                f"{len(rows)} clips in batches of stream.batch_size={config.batch_size} cannot be "
                f"dealt to {n_shares} shares; make stream.batch_size a multiple of it"
            )
        self.steps_per_epoch = config.steps_per_epoch or max(1, len(rows) // config.batch_size)
        self.batch_size = config.batch_size // n_shares
        self.store = store
        self.rows = list(rows)[share::n_shares]
        self.labels = labels[share::n_shares].astype(np.float32)
        self.config = config
        self._weights = clip_weights(self.labels, balance=config.balance)
        self.seed = seed
        if n_shares > 1:
            sequence = np.random.SeedSequence((seed, share, n_shares))
            self.seed = int(sequence.generate_state(1)[0])

    def _draws(self, number: int) -> npt.NDArray[np.int64]:
        """Draws that each clip gives in pass `number` [shape=(n_clips,)]."""
        n_clips = len(self.rows)
        if self.config.rate is None and not self.config.balance:
            return np.full(n_clips, self.config.patches_per_clip)
        # Decided here and not by pescador's own rate and weights: how long a pass is must be known
        # to return into the middle of the sequence. At least one draw, so that every clip is seen.
        rng = np.random.default_rng((self.seed, number))
        if self.config.rate is not None:
            return 1 + rng.poisson(np.maximum(0.0, self.config.rate * self._weights - 1))
        wanted = self.config.patches_per_clip * self._weights
        # Rounded up as often as its fraction says, so that the mean over passes is what is wanted.
        return np.maximum(1, np.floor(wanted + rng.random(n_clips)).astype(np.int64))

    def _blocks_of_pass(self, number: int, n_skipped: int, open_clip: OpenClip) -> Iterator[Rows]:
        """Examples of one pass, without opening the clips of the first `n_skipped`."""
        draws = self._draws(number)
        skip = n_skipped
        longest = int(draws.max())
        if self.config.balance:
            # All draws of a rare clip on end would fill whole batches with it.
            longest = min(longest, math.ceil(self.config.rate or self.config.patches_per_clip))
        n_openings = -(-draws // longest)
        # Of each opening: the clip, and its how manieth.
        clips = np.repeat(np.arange(len(draws)), n_openings)
        parts = np.arange(len(clips)) - np.repeat(np.cumsum(n_openings) - n_openings, n_openings)
        # One draw at a time mixes clips; where whole batches are mixed afterwards, a clip may as
        # well give all draws of an opening at once, which spares pescador most of its work.
        most = 1 if self.config.mix_batches == 1 else longest

        # A closure with its own generator: pescador copies a streamer's arguments each time it
        # opens it, so that a generator among them would repeat itself, and so would one whose
        # seed did not depend on the pass.
        def blocks_of_opening(opening: int) -> Iterator[Rows | int]:
            position, begin = int(clips[opening]), int(parts[opening]) * longest
            row = self.rows[position]
            rng = np.random.default_rng((self.seed, number, position))
            bags = random_bags(
                rng,
                int(self.store.n_windows[row]),
                n_bags=int(draws[position]),
                bag_size=self.config.patches_per_bag,
            )
            bags = bags[begin : begin + longest]
            take = None
            for first in range(0, len(bags), most):
                block = bags[first : first + most]
                if skip >= len(block):
                    yield len(block)
                    continue
                if take is None:
                    take = open_clip(position)
                yield take(block)

        def blocks_of_slot(slot: int) -> Iterator[Rows | int]:
            for opening in order[slot::n_active]:
                yield from blocks_of_opening(int(opening))

        n_active = min(self.config.n_active, len(clips))
        if self.config.mix_batches == 1:
            streamers = [pescador.Streamer(blocks_of_opening, k) for k in range(len(clips))]
        else:
            # Clips that come and go one block at a time would keep pescador busy with opening
            # streamers, and more so the more clips there are: each streamer takes many clips.
            order = np.random.default_rng((self.seed, number, 0, 1)).permutation(len(clips))
            streamers = [pescador.Streamer(blocks_of_slot, slot) for slot in range(n_active)]
        mux = pescador.StochasticMux(
            streamers,
            n_active=n_active,
            # Each opening comes once in a pass, until it has given its draws.
            rate=None,
            mode="exhaustive",
            random_state=int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]),
        )
        for block in mux.iterate():
            if isinstance(block, int):
                skip -= block
            else:
                yield _rows(block, skip, None) if skip else block
                skip = 0

    def _blocks(self, start: int, open_clip: OpenClip) -> Iterator[Rows]:
        """Endless sequence from example `start` on, in blocks of examples of one clip."""
        number = 0
        while (length := int(self._draws(number).sum())) <= start:
            start -= length
            number += 1
        while True:
            yield from self._blocks_of_pass(number, start, open_clip)
            number, start = number + 1, 0

    def _batches(self, start: int, open_clip: OpenClip) -> Iterator[Rows]:
        """Endless sequence of batches from batch number `start` on."""
        size, mix = self.batch_size, self.config.mix_batches
        group, n_skipped = divmod(start, mix)
        for together in _rebatched(self._blocks(group * mix * size, open_clip), mix * size):
            if mix > 1:
                # Of its own seed, so that any batch can be returned to.
                order = np.random.default_rng((self.seed, group, 0, 0)).permutation(mix * size)
                together = {name: array[order] for name, array in together.items()}
            for batch in range(n_skipped, mix):
                yield _rows(together, batch * size, (batch + 1) * size)
            group, n_skipped = group + 1, 0

    def _open_pickle(self, position: int) -> Callable[[Bag], Rows]:
        windows = self.store.read(self.rows[position])
        label = self.labels[position]

        def take(bags: Bag) -> Rows:
            rows: Rows = {name: array[bags] for name, array in windows.items()}
            rows[_LABEL] = np.broadcast_to(label, (len(bags), len(label)))
            return rows

        return take

    def _opener_of(self, shard: Shard) -> OpenClip:
        """Give what opens clips as numbers alone: of the clip, and of the shard's windows."""

        def open_clip(position: int) -> Callable[[Bag], Rows]:
            row = self.rows[position]
            shard.advise(row)
            first = shard.starts[row]
            return lambda bags: {
                _CLIP: np.full(len(bags), position, dtype=np.int64),
                _WINDOW: first + bags,
            }

        return open_clip

    def examples(self, start: int = 0) -> Iterator[Example]:
        """Endless sequence of examples from position `start` on, before batches are mixed."""
        for block in self._blocks(start, self._open_pickle):
            for row in range(len(block[_LABEL])):
                yield {name: array[row] for name, array in block.items()}

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Endless sequence of batches of NumPy arrays from batch number `start` on.

        They are the same ones whether they are read from pickles or from the shard.
        """
        if not self.config.shard:
            for rows in self._batches(start, self._open_pickle):
                labels = rows.pop(_LABEL)
                yield Batch(as_float32(rows), labels)
            return
        shard = open_shard(self.store)
        arrays = {name: shard.memory_map(name) for name in shard.names}
        for rows in self._batches(start, self._opener_of(shard)):
            inputs = {name: array[rows[_WINDOW]] for name, array in arrays.items()}
            yield Batch(as_float32(inputs), self.labels[rows[_CLIP]])

    def prefetched(self, start: int = 0) -> Iterator[Batch]:
        """Batches of TensorFlow tensors, prepared ahead in the background by tf.data.

        Raises
        ------
        StoreError
            If a pickle cannot be read.
        """
        from tagger.network.keras import tf

        bag = (self.batch_size, self.config.patches_per_bag)
        signature = (
            {
                name: tf.TensorSpec((*bag, *shape), tf.float32)
                for name, shape in self.store.spec.input_shapes.items()
            },
            tf.TensorSpec((self.batch_size, self.labels.shape[1]), tf.float32),
        )
        if self.config.shard:
            yield from self._prefetched_from_shard(start)
            return
        batches = ((batch.inputs, batch.labels) for batch in self.batches(start))
        for inputs, labels in in_background(batches, signature, self.config.prefetch):
            yield Batch(inputs, labels)

    def _prefetched_from_shard(self, start: int) -> Iterator[Batch]:
        """Batches whose windows TensorFlow gathers itself, out of the mapped file.

        Only numbers come through Python: copying patches through it would take longer than all
        the rest.
        """
        from tagger.network.keras import tf

        shard = open_shard(self.store)
        bag = (self.batch_size, self.config.patches_per_bag)
        all_labels = tf.constant(self.labels)

        def groups() -> Iterator[tuple[Bag, Bag]]:
            numbers = self._batches(start, self._opener_of(shard))
            while True:
                group = list(itertools.islice(numbers, _BATCHES_AT_ONCE))
                yield (
                    np.stack([rows[_CLIP] for rows in group]),
                    np.stack([rows[_WINDOW] for rows in group]),
                )

        def gather(positions: Any, windows: Any) -> Any:
            inputs = {}
            for name in shard.names:
                mapped = tf.raw_ops.ImmutableConst(
                    dtype=tf.as_dtype(shard.dtype),
                    shape=shard.shape(name),
                    memory_region_name=str(shard.path(name).resolve()),
                )
                inputs[name] = tf.cast(tf.gather(mapped, windows), tf.float32)
            return inputs, tf.gather(all_labels, positions)

        signature = (
            tf.TensorSpec((_BATCHES_AT_ONCE, bag[0]), tf.int64),
            tf.TensorSpec((_BATCHES_AT_ONCE, *bag), tf.int64),
        )
        dataset = (
            tf.data.Dataset.from_generator(groups, output_signature=signature)
            .unbatch()
            .map(gather, num_parallel_calls=_GATHERERS, deterministic=True)
            .prefetch(self.config.prefetch)
        )
        for inputs, labels in _left_alone(dataset):
            yield Batch(inputs, labels)


def prefetched_side_by_side(streams: Sequence[TrainingStream], start: int = 0) -> Iterator[Batch]:
    """Batches of several shares, one after the other within each batch, as TensorFlow tensors."""
    from tagger.network.keras import tf

    for parts in zip(*(stream.prefetched(start) for stream in streams), strict=True):
        if len(parts) == 1:
            yield parts[0]
            continue
        inputs = {
            name: tf.concat([part.inputs[name] for part in parts], axis=0)
            for name in parts[0].inputs
        }
        yield Batch(inputs, tf.concat([part.labels for part in parts], axis=0))


def _rows(columns: Rows, start: int, end: int | None) -> Rows:
    return {name: array[start:end] for name, array in columns.items()}


def _rebatched(blocks: Iterator[Rows], size: int) -> Iterator[Rows]:
    """Blocks of any lengths as blocks of `size`."""
    waiting: list[Rows] = []
    n_waiting = 0
    for block in blocks:
        waiting.append(block)
        n_waiting += len(next(iter(block.values())))
        if n_waiting < size:
            continue
        joined = {name: np.concatenate([rows[name] for rows in waiting]) for name in block}
        whole = n_waiting - n_waiting % size
        for start in range(0, whole, size):
            yield _rows(joined, start, start + size)
        waiting, n_waiting = [_rows(joined, whole, None)], n_waiting - whole


def as_float32(arrays: Example) -> Example:
    """Arrays as float32, copied only where they are not."""
    return {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}


def in_background(items: Iterator[Any], signature: Any, prefetch: int) -> Iterator[Any]:
    """Run an iterator in the background through tf.data; its own exceptions come through."""
    from tagger.network.keras import tf

    failures: list[Exception] = []

    def guarded() -> Iterator[Any]:
        # tf.data turns an exception into one of its own and keeps only its text.
        try:
            yield from items
        except Exception as error:
            failures.append(error)
            raise

    dataset = tf.data.Dataset.from_generator(guarded, output_signature=signature)
    try:
        yield from _left_alone(dataset.prefetch(prefetch))
    except tf.errors.OpError:
        if failures:
            raise failures[0] from None
        raise


def _left_alone(dataset: Any) -> Any:
    """Switch off what measures a dataset in the background and has nothing to choose here.

    It sleeps for up to a minute between two looks, and whoever drops the dataset waits until it
    wakes: ten seconds and more of the few that a machine has which is being taken away.
    """
    from tagger.network.keras import tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
