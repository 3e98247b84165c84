"""A run's best weights as a model that computes with Keras."""

from collections.abc import Sequence
from functools import partial

from tagger.config import Config
from tagger.runs.folder import RunFolder
from tagger.scoring.model import thresholds_as_array
from tagger.scoring.scorer import Scorer


class RunModel:
    """The network of a run, with its best weights; a `tagger.scoring.model.Model`.

    Parameters
    ----------
    run : RunFolder
        The run.
    config : Config, optional
        Its config, where that says otherwise where the data are; default as it was trained.

    Attributes
    ----------
    network : TaggerModel
        For who scores a whole store.

    Raises
    ------
    ModelError
        If the run is damaged, has no weights yet or was made with another front end.
    """

    version, runs_on = "", "Keras"

    def __init__(self, run: RunFolder, config: Config | None = None) -> None:
        from tagger.network.model import build_model

        config = config or run.load_config()
        self.name = str(run.address)
        self.front_end = config.make_front_end()
        run.require_front_end(self.front_end)
        self.tags = run.load_vocabulary().tags
        self.network = build_model(config, self.front_end, self.tags)
        self.network.load_weights(run.best_weights)
        self.decides_one = self.network.task.decides_one
        self.output_sizes = self.network.output_sizes
        n_tags = len(self.tags)
        self.network.fitted_head = run.load_clip_head(sizes=self.output_sizes, n_tags=n_tags)
        self.clip_head = self.network.clip_head
        self.calibration = run.load_calibration(n_tags=n_tags)
        self.thresholds = thresholds_as_array(run.load_thresholds())

    def make_scorer(self, names: Sequence[str], *, n_threads: int = 1) -> Scorer:
        """As of `tagger.scoring.model.Model`; TensorFlow has threads of its own."""
        del n_threads
        return partial(self.network.window_outputs, names=tuple(names))
