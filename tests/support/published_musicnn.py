"""The published networks of musicnn 0.1.0, run from their own graphs."""

import zipfile

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from tagger.bundle.models.musicnn import extract_checkpoint
from tagger.network.keras import tf

# The published names of what our networks call so.
OUTPUTS = {
    "musicnn": {
        "scores": "model/Sigmoid:0",
        "max_pool": "model/Max:0",
        "mean_pool": "model/moments/Squeeze:0",
        "penultimate": "model/batch_normalization_10/batchnorm/add_1:0",
    },
    "vgg": {"scores": "model/Sigmoid:0", "pooled": "model/Flatten/flatten/Reshape:0"},
}


def extract_published(wheel, name, folder):
    """Prefix of a checkpoint of the package, with the graph that belongs to it."""
    prefix = extract_checkpoint(wheel, name, folder)
    with zipfile.ZipFile(wheel) as archive:
        meta = archive.read(f"musicnn/{name}/.meta")
    prefix.with_name(prefix.name + ".meta").write_bytes(meta)
    return prefix


def run_published(prefix, outputs, log_mel):
    """Answers of a checkpoint's own graph.

    Parameters
    ----------
    prefix : Path
        Checkpoint with its ``.meta`` file.
    outputs : dict of str to str
        Tensor of each output.
    log_mel : np.ndarray [shape=(n_windows, 187, 96)]
    """
    meta = meta_graph_pb2.MetaGraphDef()
    meta.ParseFromString(prefix.with_name(prefix.name + ".meta").read_bytes())
    wanted = [tensor.partition(":")[0] for tensor in outputs.values()]
    wanted.append(meta.saver_def.restore_op_name)
    # Without the gradients, whose recorded shapes a present TensorFlow refuses.
    graph_def = tf.compat.v1.graph_util.extract_sub_graph(meta.graph_def, wanted)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        session.run(
            meta.saver_def.restore_op_name, {meta.saver_def.filename_tensor_name: str(prefix)}
        )
        values = session.run(
            list(outputs.values()),
            {"model/Placeholder:0": log_mel, "model/Placeholder_2:0": False},
        )
    n_windows = len(log_mel)
    return {
        name: np.reshape(value, (n_windows, -1))
        for name, value in zip(outputs, values, strict=True)
    }
