"""Sound that comes as it is heard: its last seconds are tagged once a second."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tagger.tagging.prediction import Prediction
from tagger.tagging.tagger import Tagger

HOP_SECONDS = 1.0
# Of a model whose window is a whole clip.
_LONGEST_SECONDS = 30.0


class Listener:
    """The last seconds of a stream of samples, tagged as they come.

    Parameters
    ----------
    tagger : Tagger
        The model; it hears mono samples at the rate of its front end.
    """

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self.sample_rate = tagger.front_end.sample_rate
        self.window_seconds = tagger.front_end.window_seconds or _LONGEST_SECONDS
        self._most = round(self.window_seconds * self.sample_rate)
        self._hop = round(HOP_SECONDS * self.sample_rate)
        self._held: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._n_heard = self._n_due = 0

    def heard(self, samples: npt.NDArray[np.float32]) -> list[tuple[float, Prediction]]:
        """Take samples as `hear` does, at once."""
        return list(self.hear(samples))

    def hear(self, samples: npt.NDArray[np.float32]) -> Iterator[tuple[float, Prediction]]:
        """Take samples, and tag what is due.

        Parameters
        ----------
        samples : np.ndarray [shape=(n_samples,), dtype=float32]
            Mono, those that follow.

        Yields
        ------
        time : float
            Seconds since the start.
        prediction : Prediction
            Of the last window. Where several are due at once, of the last alone: what is late
            is not made later still.
        """
        finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        self._held = np.concatenate([self._held, finite])[-self._most :]
        self._n_heard += len(samples)
        if self._n_heard < self._n_due + self._hop:
            return
        self._n_due = self._n_heard - self._n_heard % self._hop
        yield (
            self._n_heard / self.sample_rate,
            self.tagger.predict(np.clip(self._held, -1, 1), self.sample_rate),
        )
