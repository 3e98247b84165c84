"""The only place that imports TensorFlow and tf-keras.

AutoPool and everything else here are built on Keras 2, which lives on as tf-keras. TensorFlow must
be told so before it is imported: otherwise ``tensorflow.keras`` is Keras 3, and layers made on it
look like part of a tf-keras model while their weights never train and cannot be saved.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tagger.base.files import silent_stderr

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def silent_start() -> Iterator[None]:
    """Send what TensorFlow's C++ code says while it starts to nowhere.

    It logs before its own log level applies, on a machine without a GPU even errors about CUDA.
    Where there is an NVIDIA device all of it is shown, as it may explain why that is not used.
    """
    if Path("/dev/nvidia0").exists():
        yield
        return
    with silent_stderr():
        yield


with silent_start():
    import tensorflow as tf
    import tf_keras as keras

    # Starts the runtime, which is the other moment at which it logs. Not where several machines
    # train together: their strategy must be chosen before.
    if "TF_CONFIG" not in os.environ:
        tf.config.list_logical_devices()

# Keras notices a missing flag only in some functions; AutoPool does not at all.
if keras.layers.Layer is not tf.keras.layers.Layer:  # pragma: no cover
    raise ImportError("import tagger before tensorflow: tensorflow.keras is not tf_keras here")

__all__ = ["keras", "silent_start", "tf"]
