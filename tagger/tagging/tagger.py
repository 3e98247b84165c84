"""Tags and embeddings of audio files: load a model once, ask it about any number of files."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.engines.workers import default_workers
from preprocess.signal.audio import prepare_waveform
from preprocess.signal.windows import stream_windows
from tagger.base.errors import ModelError, TaggerError
from tagger.bundle.light_model import LightModel
from tagger.cloud.locations import file_or_object
from tagger.scoring.model import Model
from tagger.scoring.scorer import SCORES, Outputs
from tagger.tagging.clip_streams import WatchedClip, WaveformClip
from tagger.tagging.pipeline import ClipOutputs, Pipeline, Stream, WorkerPool
from tagger.tagging.prediction import Prediction

if TYPE_CHECKING:
    from preprocess.signal.features import Windows
from tagger.tagging.embedding import Embedding

__all__ = ["Embedding", "Prediction", "Tagger"]

Source = str | Path | npt.NDArray[np.floating]
OnError = Callable[[str, TaggerError], None]
ResultT = TypeVar("ResultT")
PENULTIMATE = "penultimate"


class Tagger:
    """A model, ready to tag. Use `Tagger.load`.

    Parameters
    ----------
    model : Model
        What computes.
    jobs : int, optional
        Threads that decode, and threads that compute; default one per processor.
    most_missing : float
        Share of a file's audio that may be missing or damaged, from 0 to 1.
    """

    def __init__(
        self, model: Model, *, jobs: int | None = None, most_missing: float = MOST_MISSING
    ) -> None:
        self.model = model
        self.most_missing = most_missing
        self.tags, self.front_end = model.tags, model.front_end
        self.thresholds, self.calibration = model.thresholds, model.calibration
        self.embeddings = [name for name in model.output_sizes if name != SCORES]
        self.jobs = jobs or default_workers()
        self._clip_head = model.clip_head
        # What of the model makes a prediction.
        self.asked = self._clip_head.outputs
        self._scorers = self._new_scorers()

    def _new_scorers(self) -> WorkerPool:
        model = self.model
        return WorkerPool(lambda: model.make_scorer(tuple(model.output_sizes)))

    def __getstate__(self) -> dict[str, Any]:
        # What computes is made anew in the process that a pool of processes sends it to.
        return {name: value for name, value in vars(self).items() if name != "_scorers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._scorers = self._new_scorers()

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        quantize: str = "none",
        jobs: int | None = None,
        most_missing: float = MOST_MISSING,
    ) -> "Tagger":
        """Load a model.

        Parameters
        ----------
        model : str or Path, optional
            A bundle or training run by its folder, a ``gs://`` URI of a bundle, or a registered
            name such as ``"musicnn-mtt"``, which is pulled at first use. Default ``$TAGGER_MODEL``,
            else ``"musicnn-mtt"``.
        quantize : str
            Which of its exported models: ``"none"``, ``"dynamic"`` or ``"float16"``; or
            ``"bfloat16"``: see `LightModel`.
        jobs : int, optional
            Threads that decode, and threads that compute; default one per processor.
        most_missing : float
            Share of a file's audio that may be missing or damaged, from 0 to 1; with more missing
            it is an error.

        Returns
        -------
        Tagger

        Raises
        ------
        ModelError
            If there is no such model, it cannot be had or it is damaged.
        """
        from tagger.bundle.find import default_model, find_bundle

        name = model if model is not None else default_model()
        model_ = LightModel(find_bundle(name), quantize=quantize)
        return cls(model_, jobs=jobs, most_missing=most_missing)

    def predict(
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        middle_seconds: float | None = None,
    ) -> Prediction:
        """Tag a file or a waveform.

        Parameters
        ----------
        source : str, Path or np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
            Audio file of any length, or samples in [-1, 1].
        sample_rate : int, optional
            Samples per second of a waveform.
        middle_seconds : float, optional
            Only so much of the middle of a file.

        Returns
        -------
        Prediction
            Tags, scores, taggram and times.

        Raises
        ------
        AudioError
            If the file or waveform cannot be used; the message says why and what to do.
        ModelError
            If this model has no tags.
        """
        self.require_tags()
        found = self._one(source, sample_rate, outputs=self.asked, middle_seconds=middle_seconds)
        return self.prediction("" if isinstance(source, np.ndarray) else str(source), found)

    def __call__(self, source: Source, sample_rate: int | None = None) -> Prediction:
        """Tag a file or a waveform: `predict` by another name."""
        return self.predict(source, sample_rate)

    def __repr__(self) -> str:
        gives = f"{len(self.tags)} tags" if self.tags else "embeddings"
        return f"Tagger({self.model.name!r}, {gives})"

    def predict_many(
        self,
        paths: Iterable[str | Path],
        *,
        middle_seconds: float | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[Prediction]:
        """Tag files, in order; decoding, inference and your own code overlap.

        Parameters
        ----------
        paths : iterable of str or Path
            Audio files.
        middle_seconds : float, optional
            Only so much of the middle of each file.
        on_error : callable, optional
            Called with the path and the error of a file that cannot be used, when its turn comes;
            default a Python warning. The file is left out.

        Yields
        ------
        Prediction

        Raises
        ------
        ModelError
            If this model has no tags.
        """
        with contextlib.closing(self.attempt_many(paths, middle_seconds=middle_seconds)) as results:
            yield from _good(results, on_error)

    def attempt_many(
        self, paths: Iterable[str | Path], *, middle_seconds: float | None = None
    ) -> Generator[tuple[str, "Prediction | TaggerError"], None, None]:
        """Tag files, in order; the error of a file that cannot be used comes in its place.

        Parameters
        ----------
        paths, middle_seconds
            As of `predict_many`.

        Yields
        ------
        tuple of (str, Prediction or TaggerError)
            Path and result.

        Raises
        ------
        ModelError
            If this model has no tags.
        """
        self.require_tags()
        return self.attempt(paths, self.asked, middle_seconds, make=self.prediction)

    def predict_windows(self, windows: "Windows", *, path: str = "") -> Prediction:
        """Tag windows that were computed before.

        Parameters
        ----------
        windows : dict of str to np.ndarray [shape=(n_windows, *input_shapes[name])]
            All of one clip, as the model's front end makes them.
        path : str
            The file that they are of.

        Returns
        -------
        Prediction
            Its length is that up to the end of the last window. Where a window is a whole clip, its
            length is not known, and counts as a second.
        """
        self.require_tags()
        scorer = self._scorers.take()
        try:
            outputs = scorer({k: array.astype(np.float32) for k, array in windows.items()})
        finally:
            self._scorers.give_back(scorer)
        return self.predict_outputs(outputs, path=path)

    def predict_outputs(self, outputs: "Outputs", *, path: str = "") -> Prediction:
        """Tag a clip by what was computed of its windows before.

        Parameters
        ----------
        outputs : dict of str to np.ndarray [shape=(n_windows, n_dimensions)]
            All that the model's clip head asks for.
        path : str
            The file that they are of.

        Returns
        -------
        Prediction
            As of `predict_windows`.
        """
        starts = self.front_end.window_starts(len(next(iter(outputs.values()))))
        seconds = float(starts[-1]) + (self.front_end.window_seconds or 1.0)
        return self.prediction(path, ClipOutputs(outputs, 0.0, seconds, False))

    def attempt_outputs(
        self, paths: Iterable[str | Path], *, outputs: tuple[str, ...] | None = None
    ) -> Generator[tuple[str, ClipOutputs | TaggerError], None, None]:
        """Compute some outputs of all windows; errors come as of `attempt_many`.

        Parameters
        ----------
        paths : iterable of str or Path
            Audio files.
        outputs : tuple of str, optional
            Names of the outputs; default what a prediction is made of.
        """
        return self.attempt(paths, outputs or self.asked, None, make=lambda _, found: found)

    def embed(
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        layer: str | None = None,
        middle_seconds: float | None = None,
    ) -> Embedding:
        """Embedding of a file or a waveform.

        Parameters
        ----------
        source, sample_rate, middle_seconds
            As of `predict`.
        layer : str, optional
            One of `embeddings`; default `default_layer`.

        Returns
        -------
        Embedding

        Raises
        ------
        AudioError
            If the file or waveform cannot be used.
        ModelError
            If this model has no such layer.
        """
        layer = layer or self.default_layer
        self.require_layer(layer)
        found = self._one(source, sample_rate, outputs=(layer,), middle_seconds=middle_seconds)
        path = "" if isinstance(source, np.ndarray) else str(source)
        return self.embedding(path, found, layer=layer)

    def embed_many(
        self,
        paths: Iterable[str | Path],
        *,
        layer: str | None = None,
        middle_seconds: float | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[Embedding]:
        """Embeddings of files, in order; as `predict_many`.

        Raises
        ------
        ModelError
            If this model has no such layer.
        """
        with contextlib.closing(
            self.attempt_embed_many(paths, layer=layer, middle_seconds=middle_seconds)
        ) as results:
            yield from _good(results, on_error)

    def attempt_embed_many(
        self,
        paths: Iterable[str | Path],
        *,
        layer: str | None = None,
        middle_seconds: float | None = None,
    ) -> Generator[tuple[str, "Embedding | TaggerError"], None, None]:
        """Embeddings of files, in order; the error of a file comes in its place.

        Raises
        ------
        ModelError
            If this model has no such layer.
        """
        layer = layer or self.default_layer
        self.require_layer(layer)
        make = functools.partial(self.embedding, layer=layer)
        return self.attempt(paths, (layer,), middle_seconds, make=make)

    @property
    def default_layer(self) -> str:
        """The penultimate layer; of a network that names none, the first embedding it has."""
        return PENULTIMATE if PENULTIMATE in self.embeddings else self.embeddings[0]

    def require_tags(self) -> None:
        """Make sure that this model has tags.

        Raises
        ------
        ModelError
            If it gives embeddings alone.
        """
        if not self.tags:
            raise ModelError(
                f"{self.model.name}: gives embeddings ({', '.join(self.embeddings)}), not tags; "
                "use 'tagger embed', or another model"
            )

    def require_layer(self, layer: str) -> None:
        """Make sure that this model has an embedding.

        Raises
        ------
        ModelError
            If it has none of that name.
        """
        if layer not in self.embeddings:
            raise ModelError(
                f"{self.model.name}: has no embedding {layer!r}; choose one of "
                f"{', '.join(self.embeddings)}"
            )

    def _one(
        self,
        source: Source,
        sample_rate: int | None,
        *,
        outputs: tuple[str, ...],
        middle_seconds: float | None,
    ) -> ClipOutputs:
        if not isinstance(source, np.ndarray):
            with contextlib.closing(
                self.attempt([source], outputs, middle_seconds, make=lambda _, found: found)
            ) as results:
                return _whole(next(results)[1])
        if sample_rate is None:
            raise ValueError("a waveform needs its sample_rate")
        samples = prepare_waveform(
            np.asarray(source), sample_rate, target_rate=self.front_end.sample_rate
        )
        clip = WaveformClip(samples, self.front_end)
        pipeline = Pipeline(self._scorers, outputs, jobs=self.jobs)
        with contextlib.closing(pipeline.run(["waveform"], lambda _: clip)) as results:
            return _whole(next(results))

    def attempt(
        self,
        paths: Iterable[str | Path],
        outputs: tuple[str, ...],
        middle_seconds: float | None = None,
        *,
        make: Callable[[str, ClipOutputs], ResultT],
        tell: Callable[[int], None] | None = None,
    ) -> Generator[tuple[str, ResultT | TaggerError], None, None]:
        """Compute outputs of the windows of files, and make something of them, in order.

        Parameters
        ----------
        paths, middle_seconds
            As of `attempt_many`.
        outputs : tuple of str
            Which ones; those of `prediction` are in `asked`.
        make : callable
            Path and outputs of a file -> what is yielded.
        tell : callable, optional
            Called, in another thread, with the number of windows of a file that have been read.

        Yields
        ------
        path : str
            The file.
        result : object or TaggerError
            What was made, or what went wrong.
        """
        names = [str(path) for path in paths]

        def opened(number: int) -> Stream:
            clip = stream_windows(
                file_or_object(names[number]),
                self.front_end,
                middle_seconds=middle_seconds,
                most_missing=self.most_missing,
            )
            return clip if tell is None else WatchedClip(clip, tell)

        results = Pipeline(self._scorers, outputs, jobs=self.jobs).run(names, opened)
        with contextlib.closing(results):
            for name, found in zip(names, results, strict=True):
                yield name, found if isinstance(found, TaggerError) else make(name, found)

    def _times(self, found: ClipOutputs, n_windows: int) -> npt.NDArray[np.float64]:
        return found.offset_seconds + self.front_end.window_starts(n_windows)

    def prediction(self, path: str, found: ClipOutputs) -> Prediction:
        """Make a prediction of what is `asked` for."""
        scores = self._clip_head(found.outputs)
        # Where there is one window for each clip, its stretch is the clip.
        hop_seconds = self.front_end.hop_seconds or found.seconds
        taggram = self._clip_head.over_time(found.outputs, hop_seconds=hop_seconds)
        if self.calibration is not None:
            # Windows go by the same curves, so that a threshold means the same for them.
            scores, taggram = self.calibration(scores), self.calibration(taggram)
        return Prediction(
            path=path,
            tags=self.tags,
            scores=scores,
            taggram=taggram,
            times=self._times(found, len(taggram)),
            window_seconds=self.front_end.window_seconds or found.seconds,
            seconds=found.seconds,
            padded=found.padded,
            missing=found.missing,
            thresholds=self.thresholds,
            decides_one=self.model.decides_one,
        )

    def embedding(self, path: str, found: ClipOutputs, *, layer: str) -> Embedding:
        """Take the output `layer` as an embedding."""
        values = found.outputs[layer]
        return Embedding(
            path=path,
            layer=layer,
            values=values,
            times=self._times(found, len(values)),
            window_seconds=self.front_end.window_seconds or found.seconds,
        )


def _whole(result: ClipOutputs | TaggerError) -> ClipOutputs:
    if isinstance(result, TaggerError):
        raise result
    return result


def _good(
    results: Iterator[tuple[str, ResultT | TaggerError]], on_error: OnError | None
) -> Iterator[ResultT]:
    """Results without the errors, which are told."""
    for path, result in results:
        if not isinstance(result, TaggerError):
            yield result
        elif on_error is not None:
            on_error(path, result)
        else:
            warnings.warn(str(result), stacklevel=3)
