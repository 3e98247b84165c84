"""What is done to training examples after they were drawn: mixup, gain, equaliser, masks.

All that is random is drawn here, by NumPy and from the number of the step, so that a resumed run
draws the same; `tagger.train.steps` applies it. Of several shares each has draws of its own,
whichever device takes it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd, LogScale
from tagger.base.errors import ConfigError
from tagger.config import AugmentConfig

if TYPE_CHECKING:
    from tagger.train.stream import TrainingStream

# What a step draws from, beside the seed and its number: each thing from a sequence of its own.
_MIXUP, _SPECTROGRAMS = 1, 2
# Of an equaliser's curve, equally far apart over the bands, straight lines between.
_EQUALISER_POINTS = 5

# Of one input: by what factor the level of each band grows, as a natural logarithm
# [shape=(n, n_patches, n_bands)], which frames [shape=(n, n_patches, n_frames)] and which bands
# [shape=(n, n_patches, n_bands)] are kept.
Plan = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def mixup_plan(
    seed: int, step: int, *, batch_size: int, alpha: float
) -> tuple[npt.NDArray[np.int32], float]:
    """Partner of each example, and the share of the example itself.

    From Zhang, Cisse, Dauphin & Lopez-Paz, "mixup" (ICLR 2018): one share per batch, drawn from
    Beta(alpha, alpha). Drawn from the step's own generator, so that a resumed run draws the same.
    """
    if alpha == 0:
        return np.arange(batch_size, dtype=np.int32), 1.0
    rng = np.random.default_rng((seed, step, _MIXUP))
    return rng.permutation(batch_size).astype(np.int32), float(rng.beta(alpha, alpha))


def mixup_plans(
    streams: "Sequence[TrainingStream]", step: int, *, alpha: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """`mixup_plan` of each of several streams whose batches lie side by side.

    Returns
    -------
    partners : np.ndarray [shape=(n_examples,), dtype=int32]
        Of each example; one of the same stream, as other streams may be on another machine.
    own_part : np.ndarray [shape=(n_examples,), dtype=float32]
        Share of each example itself.
    """
    partners, own_parts, first = [], [], 0
    for stream in streams:
        plan, own_part = mixup_plan(stream.seed, step, batch_size=stream.batch_size, alpha=alpha)
        partners.append(first + plan)
        own_parts.append(np.full(stream.batch_size, own_part, dtype=np.float32))
        first += stream.batch_size
    return np.concatenate(partners), np.concatenate(own_parts)


def augmented_inputs(config: AugmentConfig, front_end: FrontEnd) -> dict[str, LogScale | None]:
    """Say which inputs `spectrogram_plans` speaks of; none if nothing is to be done.

    Returns
    -------
    dict of str to LogScale or None
        What the values of an input are; None where no level changes.

    Raises
    ------
    ConfigError
        If something is to be done, and no input of the front end is a log-mel spectrogram.
    """
    if not any(config.model_dump().values()):
        return {}
    scales = front_end.log_scales
    if not scales:
        raise ConfigError(
            f"augment: front end {front_end.name!r} gives no spectrogram to change; "
            "set all keys of augment to 0"
        )
    for name in scales:
        n_frames, n_bands = front_end.input_shapes[name]
        if config.mask_frames > n_frames or config.mask_bands > n_bands:
            raise ConfigError(
                f"augment.mask_frames={config.mask_frames} and mask_bands={config.mask_bands} are "
                f"more than the {n_frames} frames x {n_bands} bands of {name}; make them smaller"
            )
    changes_level = bool(config.gain_db or config.equaliser_db)
    return {name: scales[name] if changes_level else None for name in sorted(scales)}


def spectrogram_plans(
    streams: "Sequence[TrainingStream]", step: int, *, config: AugmentConfig, front_end: FrontEnd
) -> dict[str, Plan]:
    """Draw what is done to each patch of several streams whose batches lie side by side.

    Parameters
    ----------
    streams : sequence of TrainingStream
        Their seeds decide the draws.
    step : int
        Number of the step.
    config : AugmentConfig
        How much is done.
    front_end : FrontEnd
        Shapes of its inputs, and what a decibel is in their values.

    Returns
    -------
    dict of str to Plan
        By name of the input; see `augmented_inputs`.
    """
    parts: dict[str, list[Plan]] = {name: [] for name in augmented_inputs(config, front_end)}
    for stream in streams:
        rng = np.random.default_rng((stream.seed, step, _SPECTROGRAMS))
        size = (stream.batch_size, stream.config.patches_per_bag)
        for name, plans in parts.items():
            n_frames, n_bands = front_end.input_shapes[name]
            decades = (
                _levels_db(rng, size, n_bands, config) / front_end.log_scales[name].db_per_decade
            )
            level = math.log(10) * decades
            plans.append(
                (
                    level.astype(np.float32),
                    _kept(rng, size, n_frames, longest=config.mask_frames),
                    _kept(rng, size, n_bands, longest=config.mask_bands),
                )
            )
    return {
        name: (
            np.concatenate([level for level, _, _ in plans]),
            np.concatenate([frames for _, frames, _ in plans]),
            np.concatenate([bands for _, _, bands in plans]),
        )
        for name, plans in parts.items()
    }


def _levels_db(
    rng: np.random.Generator, size: tuple[int, int], n_bands: int, config: AugmentConfig
) -> npt.NDArray[np.float64]:
    """Change of level of each band in dB [shape=(*size, n_bands)]: a gain and an equaliser."""
    gain = rng.uniform(-config.gain_db, config.gain_db, (*size, 1))
    points = config.equaliser_db * rng.standard_normal((*size, _EQUALISER_POINTS))
    at = np.linspace(0, _EQUALISER_POINTS - 1, n_bands)
    # How much of each point each band has.
    shares = np.maximum(0, 1 - np.abs(at - np.arange(_EQUALISER_POINTS)[:, np.newaxis]))
    levels: npt.NDArray[np.float64] = gain + points @ shares
    return levels


def _kept(
    rng: np.random.Generator, size: tuple[int, int], length: int, *, longest: int
) -> npt.NDArray[np.float32]:
    """Zero over one stretch of at most `longest`, one elsewhere [shape=(*size, length)].

    From Park et al., "SpecAugment" (Interspeech 2019), section 2.
    """
    n_masked = rng.integers(0, longest + 1, (*size, 1))
    start = rng.integers(0, length - n_masked + 1)
    place = np.arange(length)
    return ((place < start) | (place >= start + n_masked)).astype(np.float32)


def apply_plan(spectrogram: Any, plan: Sequence[Any], scale: LogScale | None) -> Any:
    """Do to patches what a `Plan` says.

    Parameters
    ----------
    spectrogram : tensor [shape=(n, n_patches, n_frames, n_bands)]
        Log-mel patches.
    plan : sequence of tensor
        Of the same number of examples and patches.
    scale : LogScale or None
        What the values are; None where the plan changes no level.

    Returns
    -------
    tensor [shape=(n, n_patches, n_frames, n_bands)]
        Masked places hold the mean of the patch, its level changed.
    """
    from tagger.network.keras import tf

    level, kept_frames, kept_bands = plan
    kept = kept_frames[..., tf.newaxis] * kept_bands[..., tf.newaxis, :]
    if scale is not None:
        spectrogram = _at_level(spectrogram, level[..., tf.newaxis, :], scale)
    mean = tf.reduce_mean(spectrogram, axis=(2, 3), keepdims=True)
    return tf.where(kept > 0, spectrogram, mean)


def _at_level(spectrogram: Any, growth: Any, scale: LogScale) -> Any:
    """Values of sound whose level has grown by `growth`, and its offset has not."""
    from tagger.network.keras import tf

    # With s the offset's share of what is in the logarithm, log((x - offset) g + offset) is
    # log(x) + log(g) + log(1 - s + s / g): nothing in it is larger than the values themselves, and
    # silence (s = 1) stays what it is, be it rounded to float16.
    per_log = 1 / math.log(scale.base)
    share = tf.minimum(1.0, scale.offset * tf.exp(-spectrogram / per_log))
    return spectrogram + per_log * (growth + tf.math.log(1 - share + share * tf.exp(-growth)))


def mixed(values: Any, partners: Any, own_part: Any) -> Any:
    """Each example with its partner: see `mixup_plans`."""
    from tagger.network.keras import tf

    own_part = tf.reshape(own_part, [-1] + [1] * (len(values.shape) - 1))
    return own_part * values + (1 - own_part) * tf.gather(values, partners)


def as_values(plans: Mapping[str, Plan], names: Iterable[str]) -> list[Any]:
    """Arrays of plans one after the other, as the training step takes them."""
    return [array for name in names for array in plans[name]]
