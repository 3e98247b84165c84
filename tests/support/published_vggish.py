"""Checkpoints as VGGish's authors publish them, with random weights."""

import numpy as np

from tagger.network.keras import tf

# The names of the published checkpoint, with the shapes of its kernels.
BODY = {
    "vggish/conv1": (3, 3, 1, 64),
    "vggish/conv2": (3, 3, 64, 128),
    "vggish/conv3/conv3_1": (3, 3, 128, 256),
    "vggish/conv3/conv3_2": (3, 3, 256, 256),
    "vggish/conv4/conv4_1": (3, 3, 256, 512),
    "vggish/conv4/conv4_2": (3, 3, 512, 512),
}
FULLY_CONNECTED = {
    "vggish/fc1/fc1_1": (12288, 4096),
    "vggish/fc1/fc1_2": (4096, 4096),
    "vggish/fc2": (4096, 128),
}


def published_tensors(layers=BODY, *, seed=0, width=1.0):
    """Random tensors under the published names."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer, shape in layers.items():
        if width != 1:
            n_in = shape[2] if shape[2] == 1 else round(shape[2] * width)
            shape = (*shape[:2], n_in, round(shape[3] * width))
        for kind, size in (("weights", shape), ("biases", shape[-1:])):
            tensor = rng.standard_normal(size, dtype=np.float32)
            # In place: the fully connected ones are large.
            tensor *= 0.05
            tensors[f"{layer}/{kind}"] = tensor
    return tensors


def write_checkpoint(prefix, tensors):
    """Write a checkpoint as TensorFlow 1's Saver does: variables under their plain names."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return prefix


def write_single_file(path, tensors):
    """Write a checkpoint in the older format of one file, which the published one has."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        named = {
            name: tf.compat.v1.get_variable(f"v{number}", initializer=value)
            for number, (name, value) in enumerate(tensors.items())
        }
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(named, write_version=tf.compat.v1.train.SaverDef.V1)
        saver.save(session, str(path), write_meta_graph=False)
    return path
