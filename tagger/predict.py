"""Tags of audio files: load a trained run once, tag any number of files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.audio import Waveform, find_audio_files, prepare_waveform
from preprocess.run import windows_of_file, windows_of_waveform
from tagger.config import Config
from tagger.run_folder import RunFolder

# Windows scored at once: bounds the memory that a long file takes.
_BATCH_WINDOWS = 256


@dataclass(frozen=True)
class Prediction:
    """What a model says of one clip.

    Parameters
    ----------
    path : str
        The file; empty for a waveform.
    tags : tuple of str
        Names, in the model's order.
    scores : np.ndarray [shape=(n_tags,), dtype=float32]
        Of the whole clip, between 0 and 1.
    taggram : np.ndarray [shape=(n_windows, n_tags), dtype=float32]
        Scores over time.
    times : np.ndarray [shape=(n_windows,), dtype=float64]
        Start of each window in seconds.
    window_seconds : float
        Length of a window.
    padded : bool
        The clip was shorter than a window and was padded with zeros.
    """

    path: str
    tags: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    taggram: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    window_seconds: float
    padded: bool = False

    def top(self, k: int | None = None, *, threshold: float = 0.0) -> list[tuple[str, float]]:
        """Tags with the highest scores.

        Parameters
        ----------
        k : int, optional
            At most so many; default all.
        threshold : float
            Only tags that score at least this.

        Returns
        -------
        list of tuple of (str, float)
            Tag and score, highest first.
        """
        order = np.argsort(-self.scores, kind="stable")[:k]
        ranked = [(self.tags[tag], float(self.scores[tag])) for tag in order]
        return [(tag, score) for tag, score in ranked if score >= threshold]


class Tagger:
    """A trained model, ready to tag.

    Use `Tagger.load`.

    Parameters
    ----------
    config : Config
        Effective config of its run.
    tags : tuple of str
        Names of the outputs.
    weights : Path
        File that the run's training wrote.
    """

    def __init__(self, config: Config, tags: tuple[str, ...], weights: Path) -> None:
        from tagger.model import build_model

        self.config = config
        self.tags = tags
        self.front_end = config.make_front_end()
        self._model = build_model(config, self.front_end, tags)
        self._model.load_weights(weights)

    @classmethod
    def load(cls, run: str | Path) -> "Tagger":
        """Load the best weights of a training run.

        Parameters
        ----------
        run : str or Path
            The folder that ``tagger train`` wrote.

        Returns
        -------
        Tagger

        Raises
        ------
        ModelError
            If there is no such run, it is damaged or of another format version.
        """
        folder = RunFolder(Path(run))
        folder.require()
        config = folder.load_config()
        folder.require_front_end(config.make_front_end())
        return cls(config, folder.load_vocabulary().tags, folder.best_weights)

    def predict(self, path: str | Path) -> Prediction:
        """Tag a file.

        Parameters
        ----------
        path : str or Path
            Audio file of any length and sample rate.

        Returns
        -------
        Prediction
            Tags, scores, taggram and times.

        Raises
        ------
        AudioError
            If the file cannot be used; the message names it and the remedy.
        """
        windows, padded = windows_of_file(Path(path), self.front_end)
        return self._prediction(str(path), windows, padded)

    def predict_waveform(self, waveform: Waveform, sample_rate: int) -> Prediction:
        """Tag samples.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
            Samples in [-1, 1].
        sample_rate : int
            Samples per second.

        Returns
        -------
        Prediction

        Raises
        ------
        AudioError
            If there are no samples or one is not finite.
        """
        target = self.front_end.sample_rate
        prepared = prepare_waveform(waveform, sample_rate, target_rate=target)
        return self._prediction("", *windows_of_waveform(prepared, self.front_end))

    def _prediction(
        self, path: str, windows: dict[str, npt.NDArray[np.float32]], padded: bool
    ) -> Prediction:
        n_windows = len(next(iter(windows.values())))
        taggram = np.concatenate(
            [
                self._model.score_windows(
                    {name: array[i : i + _BATCH_WINDOWS] for name, array in windows.items()}
                )
                for i in range(0, n_windows, _BATCH_WINDOWS)
            ]
        )
        return Prediction(
            path=path,
            tags=self.tags,
            scores=self._model.clip_scores(taggram),
            taggram=taggram,
            times=self.front_end.window_starts(n_windows),
            window_seconds=self.front_end.window_seconds,
            padded=padded,
        )


def expand_inputs(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as given, and the audio files below folders.

    A folder that holds none is given itself: as the one bad input that it is, it stops no other.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        yield from find_audio_files(path) or [path]
