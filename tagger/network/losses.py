"""Losses of clip scores."""

from typing import Any

from tagger.network.keras import keras, tf

# Scores are kept this far from 0 and 1, as Keras does.
_EPSILON = 1e-7


def multilabel_loss(
    labels: Any,
    scores: Any,
    *,
    positive_weight: float = 1.0,
    focus_positive: float = 0.0,
    focus_negative: float = 0.0,
    negative_margin: float = 0.0,
    negative_label: float = 0.0,
) -> Any:
    """Mean over clips and tags of ``y w (1-p)^a (-log p) + (1-y) q^b (-log (1-q))``.

    With ``q = max(p - negative_margin, 0)``. The defaults are binary cross-entropy. Equal exponents
    are the focal loss (Lin et al., ICCV 2017, equation 4), a larger one for negatives together with
    a margin the asymmetric loss (Ridnik et al., ICCV 2021, equation 7: 0, 4 and 0.05).

    Parameters
    ----------
    labels : tensor [shape=(n_clips, n_tags), dtype=float32]
        1 where a clip carries a tag; in between after mixup.
    scores : tensor [shape=(n_clips, n_tags), dtype=float32]
        From 0 to 1.
    positive_weight : float
        ``w``.
    focus_positive, focus_negative : float
        ``a`` and ``b``.
    negative_margin : float
        Score up to which a tag that is not carried costs nothing.
    negative_label : float
        What a label of 0 counts as: label smoothing for tags that nobody was asked about. It is the
        score that costs least only where all else is at its default.

    Returns
    -------
    tensor [shape=(), dtype=float32]
    """
    if negative_label:
        labels = negative_label + (1 - negative_label) * labels
    if (positive_weight, focus_positive, focus_negative, negative_margin) == (1, 0, 0, 0):
        return tf.reduce_mean(keras.losses.binary_crossentropy(labels, scores))
    scores = tf.clip_by_value(scores, _EPSILON, 1 - _EPSILON)
    heard = tf.maximum(scores - negative_margin, 0.0) if negative_margin else scores
    positive = -positive_weight * labels * tf.math.log(scores)
    negative = -(1 - labels) * tf.math.log(1 - heard)
    # A power of 0 has no gradient that TensorFlow could compute at 0.
    if focus_positive:
        positive *= (1 - scores) ** focus_positive
    if focus_negative:
        negative *= heard**focus_negative
    return tf.reduce_mean(positive + negative)


def categorical_cross_entropy(labels: Any, scores: Any) -> Any:
    """Mean over clips of ``-log p`` of their label.

    Parameters
    ----------
    labels : tensor [shape=(n_clips, n_labels), dtype=float32]
        1 in the column of a clip's label; shares after mixup.
    scores : tensor [shape=(n_clips, n_labels), dtype=float32]
        Probabilities: from 0 to 1, with the sum 1.

    Returns
    -------
    tensor [shape=(), dtype=float32]
    """
    return tf.reduce_mean(keras.losses.categorical_crossentropy(labels, scores))
