"""Compose front end, backbone, head and task from a config; the only place that joins them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd
from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import atomic_write
from tagger.network.backbones import BACKBONES, Backbone
from tagger.network.heads import HEADS
from tagger.network.keras import keras, tf
from tagger.network.pooling import pooling_layer
from tagger.network.task import TASKS, Task
from tagger.scoring.clip_heads import ClipHead, pooling_head
from tagger.scoring.scorer import SCORES
from tagger.untrusted.npz import read_arrays

if TYPE_CHECKING:
    from tagger.config import Config


# Of a weight file: many times what a network holds.
_MOST_BYTES = 8 << 30


class TaggerModel:
    """A network that scores windows, and what makes clip scores of them.

    Parameters
    ----------
    config : Config
        Decides the entries and their parameters.
    front_end : FrontEnd
        Its windows are the inputs.
    tags : sequence of str
        Names of the outputs; without any the network ends at the embedding and has no head.
    """

    def __init__(self, config: "Config", front_end: FrontEnd, tags: Sequence[str]) -> None:
        self.tags = tuple(tags)
        self.aggregate = config.model.aggregate
        self.task: Task = TASKS.create(config.task.name, config.task.params)
        self.backbone: Backbone = BACKBONES.create(
            config.model.backbone.name, config.model.backbone.params
        )
        head = HEADS.create(config.model.head.name, config.model.head.params)
        inputs = {
            name: keras.Input(shape, name=name) for name, shape in front_end.input_shapes.items()
        }
        embedding = self.backbone.build(inputs)
        self.embedding_model = keras.Model(inputs, embedding, name="backbone")
        self.window_model = self.embedding_model
        outputs = self.backbone.embeddings(_outputs_of(self.embedding_model))
        outputs = outputs or {"embedding": embedding}
        if self.tags:
            logits = head.build(embedding, len(self.tags))
            # Scores every window by itself; the whole network but the pooling over time.
            self.window_model = keras.Model(inputs, self.task.scores(logits), name="tagger")
            outputs |= head.embeddings(_outputs_of(self.window_model))
            outputs[SCORES] = self.window_model.output
        # All that can be asked of a window, by name: scores and embeddings. No weights of its own.
        self.output_model = keras.Model(inputs, outputs, name="outputs")
        self.time_pooling = pooling_layer(self.aggregate, name="time_pooling", dtype="float32")
        self.time_pooling.build((None, None, len(self.tags)))
        # Fitted once the network has learned.
        self.fitted_head: ClipHead | None = None
        self.freeze(config.model.backbone.freeze, "model.backbone.freeze")
        # What makes scores: of windows, or of the embeddings of windows.
        self._scorer = self.window_model
        # Batches differ in size at the end of the data; one graph serves them all.
        self._score = tf.function(
            lambda inputs: self._scorer(inputs, training=False), reduce_retracing=True
        )
        self._embed = tf.function(
            lambda windows: self.embedding_model(windows, training=False), reduce_retracing=True
        )
        self._all_outputs = tf.function(
            lambda windows: self.output_model(windows, training=False), reduce_retracing=True
        )

    @property
    def layers(self) -> list[Any]:
        """Layers with weights, from input to output."""
        return [layer for layer in [*self.window_model.layers, self.time_pooling] if layer.weights]

    @property
    def weights(self) -> dict[str, Any]:
        """Variables by name."""
        named = {
            weight.name.removesuffix(":0"): weight
            for weight in [*self.window_model.weights, *self.time_pooling.weights]
        }
        n_weights = len(self.window_model.weights) + len(self.time_pooling.weights)
        if len(named) != n_weights:
            raise ConfigError(
                "two weights of the network share a name; give its layers other names"
            )
        return named

    @property
    def trainable_variables(self) -> list[Any]:
        """Variables that training moves."""
        return [*self.window_model.trainable_variables, *self.time_pooling.trainable_variables]

    @property
    def random_states(self) -> dict[str, Any]:
        """Generators that layers such as dropout draw from, by layer name.

        Keras keeps them out of its own checkpoints; without them a resumed run would drop other
        units than an uninterrupted one. It has no public way to them.
        """
        generators = {
            layer.name: getattr(getattr(layer, "_random_generator", None), "_generator", None)
            for layer in self.window_model.submodules
            if isinstance(layer, keras.layers.Layer)
        }
        return {name: found for name, found in generators.items() if found is not None}

    @property
    def output_sizes(self) -> dict[str, int]:
        """Length of each output that `window_outputs` knows, by name."""
        outputs = self.output_model.output
        return {name: int(output.shape[-1]) for name, output in outputs.items()}

    def freeze(self, freeze: str, key: str) -> None:
        """Train nothing of the backbone, all of it, or what lies behind a layer.

        Parameters
        ----------
        freeze : str
            ``"all"``, ``"none"``, or the last layer that is not trained.
        key : str
            Where the config says so, for messages.

        Raises
        ------
        ConfigError
            If it has no such layer.
        """
        self.embedding_model.trainable = freeze != "all"
        if freeze in ("none", "all"):
            return
        names = [layer.name for layer in self.embedding_model.layers]
        if freeze not in names:
            with_weights = [layer.name for layer in self.embedding_model.layers if layer.weights]
            raise ConfigError(
                f"{key}={freeze!r} is not a layer; use none, all or one of "
                f"{', '.join(with_weights)}"
            )
        for layer in self.embedding_model.layers[: names.index(freeze) + 1]:
            layer.trainable = False

    def take_embeddings(self) -> None:
        """Score embeddings from now on, under the name ``embedding``, instead of windows.

        Only `bag_scores` and `score_windows` change; weights are the same ones.
        """
        embedding = self.embedding_model.output
        # Its layers are shared; Keras makes an input of the tensor in their midst.
        head = keras.Model(embedding, self.window_model.output, name="head")
        inputs = {"embedding": keras.Input(embedding.shape[1:], name="embedding")}
        self._scorer = keras.Model(inputs, head(inputs["embedding"]), name="tagger_of_embeddings")

    def embed_windows(self, windows: dict[str, Any]) -> npt.NDArray[np.float32]:
        """Embeddings of windows [shape=(n_windows, n_dimensions), dtype=float32].

        Parameters
        ----------
        windows : dict of str to array [shape=(n_windows, *input_shapes[name])]
            As float32 or float16.
        """
        found = self._embed(_as_tensors(windows))
        embeddings: npt.NDArray[np.float32] = tf.cast(found, tf.float32).numpy()
        return embeddings

    def bag_scores(self, inputs: dict[str, Any], *, training: bool) -> Any:
        """Clip scores of bags of windows, differentiable.

        Parameters
        ----------
        inputs : dict of str to tensor [shape=(n_clips, n_windows, *input_shapes[name])]
            Bags of equally many windows.
        training : bool
            Whether dropout and batch normalisation are in training mode.

        Returns
        -------
        tensor [shape=(n_clips, n_tags), dtype=float32]
        """
        shape = tf.shape(next(iter(inputs.values())))
        n_clips, n_windows = shape[0], shape[1]
        flat = {
            name: tf.reshape(array, (n_clips * n_windows, *array.shape[2:]))
            for name, array in inputs.items()
        }
        scores = self._scorer(flat, training=training)
        return self.time_pooling(tf.reshape(scores, (n_clips, n_windows, len(self.tags))))

    def score_windows(self, windows: dict[str, Any]) -> npt.NDArray[np.float32]:
        """Scores of windows.

        Parameters
        ----------
        windows : dict of str to array [shape=(n_windows, *input_shapes[name])]
            As float32 or float16.

        Returns
        -------
        np.ndarray [shape=(n_windows, n_tags), dtype=float32]
        """
        scores: npt.NDArray[np.float32] = self._score(_as_tensors(windows)).numpy()
        return scores

    @property
    def alpha(self) -> npt.NDArray[np.float32] | None:
        """Learned weights of AutoPool over time, one per tag; None for other poolings."""
        if self.aggregate != "autopool":
            return None
        alpha: npt.NDArray[np.float32] = self.time_pooling.kernel.numpy()[0]
        return alpha

    @property
    def clip_head(self) -> ClipHead:
        """What makes clip scores of `window_outputs`."""
        return self.fitted_head or pooling_head(self.aggregate, self.alpha)

    def window_outputs(
        self, windows: dict[str, Any], names: Sequence[str]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Scores and embeddings of windows, as `output_model` names them.

        Parameters
        ----------
        windows : dict of str to array [shape=(n_windows, *input_shapes[name])]
            As float32 or float16.
        names : sequence of str
            Which ones.

        Returns
        -------
        dict of str to np.ndarray [shape=(n_windows, n_dimensions), dtype=float32]
        """
        if tuple(names) == (SCORES,):
            return {SCORES: self.score_windows(windows)}
        outputs = self._all_outputs(_as_tensors(windows))
        return {name: tf.cast(outputs[name], tf.float32).numpy() for name in names}

    @property
    def window_bytes(self) -> int:
        """Memory that the largest layer takes for a window when windows are scored, in bytes."""
        shapes = [
            output.shape[1:]
            for layer in self._scorer.layers
            for output in tf.nest.flatten(layer.output)
        ]
        return max(math.prod(shape) for shape in shapes) * tf.float32.size

    def copy_weights(self, other: "TaggerModel") -> None:
        """Take the values of another model of the same config."""
        theirs = other.weights
        for name, variable in self.weights.items():
            variable.assign(theirs[name].numpy())

    def save_weights(self, path: Path) -> None:
        """Write all weights to an HDF5 file, one dataset per variable name, atomically."""
        import h5py

        with atomic_write(path) as file, h5py.File(file, "w") as h5:
            for name, variable in self.weights.items():
                h5.create_dataset(name, data=variable.numpy())

    def load_weights(self, path: Path) -> None:
        """Read weights that `save_weights` wrote, or an archive of arrays of the same names.

        Raises
        ------
        ModelError
            If the file is missing or damaged, or a weight is missing, unknown or of another shape.
        """
        try:
            found = (
                read_arrays(path, most_bytes=_MOST_BYTES) if path.suffix == ".npz" else _h5(path)
            )
        except FileNotFoundError:
            raise ModelError(f"{path}: no such weight file; train first, or copy it") from None
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            # HDF5 raises by what of the file is damaged.
            raise ModelError(f"{path}: damaged weight file ({error}); copy it again") from None
        weights = self.weights
        problems = [f"{name} is missing" for name in weights if name not in found]
        problems += [f"{name} is unknown" for name in found if name not in weights]
        problems += [
            f"{name} has shape {found[name].shape}, not {tuple(weights[name].shape)}"
            for name in weights
            if name in found and found[name].shape != tuple(weights[name].shape)
        ]
        if problems:
            shown = "; ".join(problems[:3])
            raise ModelError(f"{path}: does not fit the network: {shown}; use its own config")
        for name, variable in weights.items():
            variable.assign(found[name])


def _h5(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an HDF5 file by their names."""
    import h5py

    found: dict[str, npt.NDArray[Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path, "r") as h5:
        h5.visititems(visit)
    return found


def _as_tensors(windows: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tf.convert_to_tensor(np.asarray(array, dtype=np.float32))
        for name, array in windows.items()
    }


def _outputs_of(model: Any) -> Callable[[str], Any]:
    return lambda name: model.get_layer(name).output


def build_model(
    config: "Config", front_end: FrontEnd, tags: Sequence[str], *, precision: str = "float32"
) -> TaggerModel:
    """Build the network of a config.

    Parameters
    ----------
    config : Config
        Decides the entries and their parameters.
    front_end : FrontEnd
        Its windows are the inputs.
    tags : sequence of str
        Names of the outputs.
    precision : str
        Keras policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.

    Returns
    -------
    TaggerModel
        With fresh weights; seed Keras before for the same ones.
    """
    # Dropout then draws from generators whose state can be saved and restored.
    keras.backend.experimental.enable_tf_random_generator()
    # A strategy's scope does not survive it: who opens one clears the session before.
    if not tf.distribute.has_strategy():
        keras.backend.clear_session()
    previous = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        return TaggerModel(config, front_end, tags)
    finally:
        keras.mixed_precision.set_global_policy(previous)
