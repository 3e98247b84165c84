"""Streams of training and evaluation batches; the only place that knows pescador.

Training draws random patches: one pescador streamer per clip, of which `n_active` are open at a
time. The draws form one endless sequence that the seed alone decides, made of passes in each of
which every clip is open exactly once. Any position of it can be returned to, so that a resumed run
sees what an uninterrupted one would have seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pescador

from preprocess.store import Store
from tagger.config import StreamConfig
from tagger.errors import ConfigError

Example = dict[str, npt.NDArray[Any]]
_LABEL = "label"


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
        How to sample.
    seed : int
        Decides every draw.

    Raises
    ------
    ConfigError
        If there are no clips.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int],
        *,
        labels: npt.NDArray[np.uint8],
        config: StreamConfig,
        seed: int,
    ) -> None:
        if len(rows) == 0:
            raise ConfigError(
                "no clips to train on; check data.split and that the store holds the training clips"
            )
        self.store = store
        self.rows = list(rows)
        self.labels = labels.astype(np.float32)
        self.config = config
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch: as configured, or as many as show one example per clip."""
        return self.config.steps_per_epoch or max(1, len(self.rows) // self.config.batch_size)

    def _draws(self, number: int) -> npt.NDArray[np.int64]:
        """Draws that each clip gives in pass `number` [shape=(n_clips,)]."""
        n_clips = len(self.rows)
        if self.config.rate is None:
            return np.full(n_clips, self.config.patches_per_clip)
        # Decided here and not by pescador's own rate: how long a pass is must be known to return
        # into the middle of the sequence. At least one draw, so that every clip is seen.
        rng = np.random.default_rng((self.seed, number))
        return 1 + rng.poisson(max(0.0, self.config.rate - 1), n_clips)

    def _examples_of_pass(self, number: int, n_skipped: int) -> Iterator[Example]:
        """Examples of one pass, without reading the clips of the first `n_skipped`."""
        draws = self._draws(number)
        skip = n_skipped

        # A closure with its own generator: pescador copies a streamer's arguments each time it
        # opens it, so that a generator among them would repeat itself, and so would one whose
        # seed did not depend on the pass.
        def examples_of_clip(position: int) -> Iterator[Example | None]:
            row = self.rows[position]
            rng = np.random.default_rng((self.seed, number, position))
            bags = random_bags(
                rng,
                int(self.store.n_windows[row]),
                n_bags=int(draws[position]),
                bag_size=self.config.patches_per_bag,
            )
            windows = None
            for bag in bags:
                if skip > 0:
                    yield None
                    continue
                if windows is None:
                    windows = self.store.read(row)
                example: Example = {name: array[bag] for name, array in windows.items()}
                example[_LABEL] = self.labels[position]
                yield example

        streamers = [
            pescador.Streamer(examples_of_clip, position) for position in range(len(self.rows))
        ]
        mux = pescador.StochasticMux(
            streamers,
            n_active=min(self.config.n_active, len(streamers)),
            # Each clip is open once in a pass, until it has given its draws.
            rate=None,
            mode="exhaustive",
            random_state=int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]),
        )
        for example in mux.iterate():
            if skip > 0:
                skip -= 1
            else:
                yield example

    def examples(self, start: int = 0) -> Iterator[Example]:
        """Endless sequence of examples from position `start` on."""
        number = 0
        while (length := int(self._draws(number).sum())) <= start:
            start -= length
            number += 1
        while True:
            yield from self._examples_of_pass(number, start)
            number, start = number + 1, 0

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Endless sequence of batches of NumPy arrays from batch number `start` on."""
        size = self.config.batch_size
        for stacked in pescador.buffer_stream(self.examples(start * size), size):
            labels = stacked.pop(_LABEL)
            yield Batch(_as_float32(stacked), labels)

    def prefetched(self, start: int = 0) -> Iterator[Batch]:
        """Batches of TensorFlow tensors, prepared ahead in the background by tf.data.

        Raises
        ------
        StoreError
            If a pickle cannot be read.
        """
        from tagger.keras import tf

        bag = (self.config.batch_size, self.config.patches_per_bag)
        signature = (
            {
                name: tf.TensorSpec((*bag, *shape), tf.float32)
                for name, shape in self.store.spec.input_shapes.items()
            },
            tf.TensorSpec((self.config.batch_size, self.labels.shape[1]), tf.float32),
        )
        batches = ((batch.inputs, batch.labels) for batch in self.batches(start))
        for inputs, labels in _prefetched(batches, signature, self.config.prefetch):
            yield Batch(inputs, labels)


def _as_float32(arrays: Example) -> Example:
    return {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}


def _prefetched(items: Iterator[Any], signature: Any, prefetch: int) -> Iterator[Any]:
    """Run an iterator in the background through tf.data; its own exceptions come through."""
    from tagger.keras import tf

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
        yield from dataset.prefetch(prefetch)
    except tf.errors.OpError:
        if failures:
            raise failures[0] from None
        raise


def evaluation_batches(
    store: Store, rows: Sequence[int], *, batch_size: int
) -> Iterator[tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.intp]]]:
    """Every window of every clip once, in order.

    Parameters
    ----------
    store : Store
        Where the patches are.
    rows : sequence of int
        Which of its clips.
    batch_size : int
        Windows in a batch; the last one may hold fewer.

    Yields
    ------
    windows : dict of str to np.ndarray [shape=(n, *input_shapes[name])]
        As float32.
    positions : np.ndarray [shape=(n,)]
        For each window, which of `rows` it belongs to.
    """
    names = list(store.spec.input_shapes)
    parts: list[tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.intp]]] = []
    waiting = 0

    def joined() -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.intp]]:
        windows = {name: np.concatenate([part[0][name] for part in parts]) for name in names}
        return windows, np.concatenate([part[1] for part in parts])

    for position, row in enumerate(rows):
        windows = store.read(row)
        count = len(windows[names[0]])
        parts.append((windows, np.full(count, position, dtype=np.intp)))
        waiting += count
        if waiting < batch_size:
            continue
        together, positions = joined()
        whole = waiting - waiting % batch_size
        for begin in range(0, whole, batch_size):
            end = begin + batch_size
            part = {name: together[name][begin:end] for name in names}
            yield _as_float32(part), positions[begin:end]
        parts = [({name: together[name][whole:] for name in names}, positions[whole:])]
        waiting -= whole
    if waiting:
        together, positions = joined()
        yield _as_float32(together), positions


def prefetched_evaluation_batches(
    store: Store, rows: Sequence[int], *, batch_size: int, prefetch: int
) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.intp]]]:
    """`evaluation_batches` as TensorFlow tensors, prepared ahead in the background by tf.data."""
    from tagger.keras import tf

    signature = (
        {
            name: tf.TensorSpec((None, *shape), tf.float32)
            for name, shape in store.spec.input_shapes.items()
        },
        tf.TensorSpec((None,), tf.int64),
    )
    batches = evaluation_batches(store, rows, batch_size=batch_size)
    for windows, positions in _prefetched(batches, signature, prefetch):
        yield windows, positions.numpy()
