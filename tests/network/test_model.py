import numpy as np
import pytest
from small_store import make_store

from preprocess.signal.features import FRONT_ENDS
from tagger.base.errors import ConfigError, ModelError
from tagger.config import load_config
from tagger.network.keras import keras, tf
from tagger.network.model import build_model
from tagger.train.score_clips import score_clips, windows_at_once

FRONT_END = FRONT_ENDS.create("vggish", {})
NARROW = ["model.backbone.params.width=0.05", "model.head.params.units=16"]
PATCHES = np.random.default_rng(0).normal(-3, 1, (5, 96, 64)).astype(np.float32)


def model(*overrides: str, n_tags: int = 4, precision: str = "float32", seed: int = 0):
    keras.utils.set_random_seed(seed)
    tags = [f"tag {number}" for number in range(n_tags)]
    config = load_config(None, [*NARROW, *overrides])
    return build_model(config, FRONT_END, tags, precision=precision)


def test_the_body_has_the_published_number_of_parameters():
    body = build_model(load_config(), FRONT_END, ["tag"]).embedding_model
    assert body.count_params() == 4_499_712


def test_the_layer_table_is_the_published_one():
    layers = build_model(load_config(), FRONT_END, ["tag"]).embedding_model.layers
    shapes = {layer.name: tuple(layer.kernel.shape) for layer in layers if hasattr(layer, "kernel")}
    assert shapes == {
        "conv1": (3, 3, 1, 64),
        "conv2": (3, 3, 64, 128),
        "conv3_1": (3, 3, 128, 256),
        "conv3_2": (3, 3, 256, 256),
        "conv4_1": (3, 3, 256, 512),
        "conv4_2": (3, 3, 512, 512),
    }
    grid = next(layer for layer in layers if layer.name == "pool4").output_shape
    assert grid == (None, 6, 4, 512)


def test_the_published_fully_connected_layers_give_128_dimensions():
    from tagger.network.backbones.vggish import FULLY_CONNECTED

    assert [size for _, size in FULLY_CONNECTED] == [4096, 4096, 128]
    narrow = model("model.backbone.params.embedding=true")
    assert narrow.embedding_model.output_shape == (None, 128)
    # The convolutional grid is flattened, not pooled.
    assert narrow.embedding_model.get_layer("fc1_1").kernel.shape[0] == 6 * 4 * 26


@pytest.mark.parametrize("pooling", ["average", "max", "autopool"])
def test_each_pooling_reduces_the_grid_as_its_name_says(pooling):
    pooled = model(f"model.backbone.params.pooling={pooling}")
    grid = keras.Model(
        pooled.embedding_model.inputs, pooled.embedding_model.get_layer("pool4").output
    )(PATCHES).numpy()
    expected = {"average": grid.mean((1, 2)), "max": grid.max((1, 2))}
    # AutoPool starts as the average: its alpha is zero.
    reference = expected.get(pooling, grid.mean((1, 2)))
    got = pooled.embedding_model({"log_mel": PATCHES}).numpy()
    np.testing.assert_allclose(got, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_blocks", [1, 2, 3])
def test_the_head_has_as_many_blocks_as_asked_for(n_blocks):
    names = [
        layer.name for layer in model(f"model.head.params.n_blocks={n_blocks}").window_model.layers
    ]
    for kind in ("bn", "dropout", "dense"):
        assert sum(name == f"block{b}_{kind}" for b in range(1, 9) for name in names) == n_blocks


def test_scores_are_probabilities_of_each_tag_by_itself():
    scores = model().score_windows({"log_mel": PATCHES})
    assert scores.shape == (5, 4)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert not np.allclose(scores.sum(axis=1), 1)


def test_softmax_is_possible_and_warned_about():
    softmax = model("task.params.activation=softmax")
    scores = softmax.score_windows({"log_mel": PATCHES})
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert "its tags compete" in softmax.task.warnings()[0]
    assert not model().task.warnings()


def trainable(network) -> set[str]:
    return {variable.name.split("/")[0] for variable in network.trainable_variables}


def test_freeze_none_trains_everything():
    assert {"conv1", "conv4_2", "block1_dense"} <= trainable(model())


def test_freeze_all_trains_the_head_alone():
    names = trainable(model("model.backbone.freeze=all"))
    assert names == {"block1_bn", "block1_dense", "block2_bn", "block2_dense"}


def test_freezing_a_layer_freezes_everything_up_to_it():
    names = trainable(model("model.backbone.freeze=conv3_1"))
    assert names & {"conv1", "conv2", "conv3_1"} == set()
    assert {"conv3_2", "conv4_1", "conv4_2"} <= names


def test_freezing_an_unknown_layer_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"conv9.*conv4_2"):
        model("model.backbone.freeze=conv9")


def test_a_frozen_body_does_not_move_and_the_head_does():
    frozen = model("model.backbone.freeze=all", "model.backbone.params.batch_norm=true")
    before = {name: weight.numpy() for name, weight in frozen.weights.items()}
    optimizer = keras.optimizers.Adam(0.01)
    with tf.GradientTape() as tape:
        scores = frozen.bag_scores({"log_mel": PATCHES[:, None]}, training=True)
        loss = frozen.task.loss(np.ones((5, 4), np.float32), scores)
    variables = frozen.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    moved = {n for n, w in frozen.weights.items() if not np.array_equal(before[n], w.numpy())}
    assert any(name.startswith("block2_dense") for name in moved)
    # Batch statistics of a frozen body stay as well.
    assert not any(name.startswith("conv") for name in moved)


@pytest.mark.parametrize("aggregate", ["mean", "max", "autopool"])
def test_clip_scores_in_training_and_prediction_are_the_same(aggregate):
    network = model(f"model.aggregate={aggregate}", "stream.patches_per_bag=5")
    if aggregate == "autopool":
        network.time_pooling.kernel.assign([[0.5, -1.0, 3.0, 20.0]])
    in_training = network.bag_scores({"log_mel": PATCHES[None]}, training=False).numpy()[0]
    in_prediction = network.clip_head(network.window_outputs({"log_mel": PATCHES}, ["scores"]))
    np.testing.assert_allclose(in_training, in_prediction, atol=1e-6)


def test_autopool_over_time_learns_its_alpha():
    network = model("model.aggregate=autopool", "stream.patches_per_bag=5")
    before = network.time_pooling.kernel.numpy().copy()
    with tf.GradientTape() as tape:
        scores = network.bag_scores({"log_mel": PATCHES[None]}, training=True)
        loss = network.task.loss(np.ones((1, 4), np.float32), scores)
    variables = network.trainable_variables
    keras.optimizers.Adam(0.1).apply_gradients(
        zip(tape.gradient(loss, variables), variables, strict=True)
    )
    assert (np.abs(network.time_pooling.kernel.numpy() - before) > 0.01).all()


def test_weights_are_saved_and_loaded_exactly(tmp_path):
    options = ["model.aggregate=autopool", "stream.patches_per_bag=5"]
    saved, other = model(*options, seed=1), model(*options, seed=2)
    saved.time_pooling.kernel.assign([[1.0, 2.0, 3.0, 4.0]])
    saved.save_weights(tmp_path / "w.h5")
    other.load_weights(tmp_path / "w.h5")
    for name, weight in saved.weights.items():
        np.testing.assert_array_equal(weight.numpy(), other.weights[name].numpy())


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    model().save_weights(tmp_path / "w.h5")
    with pytest.raises(ModelError, match=r"w\.h5.*block2_dense/kernel has shape \(16, 4\)"):
        model(n_tags=7).load_weights(tmp_path / "w.h5")
    with pytest.raises(ModelError, match=r"conv1_bn.* is missing"):
        model("model.backbone.params.batch_norm=true").load_weights(tmp_path / "w.h5")


@pytest.mark.parametrize("content", [b"", b"not hdf5"])
def test_a_damaged_weight_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "w.h5").write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.h5.*damaged"):
        model().load_weights(tmp_path / "w.h5")


def test_bfloat16_scores_stay_close_to_float32():
    exact, rough = model(), model(precision="mixed_bfloat16")
    for name, weight in exact.weights.items():
        rough.weights[name].assign(weight)
    difference = exact.score_windows({"log_mel": PATCHES}) - rough.score_windows(
        {"log_mel": PATCHES}
    )
    assert 0 < np.abs(difference).max() < 0.02
    assert rough.score_windows({"log_mel": PATCHES}).dtype == np.float32


def test_a_precision_does_not_leak_into_the_next_model():
    model(precision="mixed_bfloat16")
    assert keras.mixed_precision.global_policy().name == "float32"


def test_windows_too_small_for_four_pools_are_refused():
    front_end = FRONT_ENDS.create("vggish", {"patch_frames": 12})
    with pytest.raises(ConfigError, match="at least 16 frames"):
        build_model(load_config(None, NARROW), front_end, ["tag"])


def test_a_missing_input_names_what_the_front_end_gives():
    with pytest.raises(ConfigError, match=r"'spectrum'.*log_mel"):
        model("model.backbone.params.input=spectrum")


@pytest.mark.parametrize(
    ("front_end", "backbone", "most", "n_windows"),
    [
        # The published VGGish keeps 64 filters on the whole patch: 1.5 MiB.
        ("vggish", "vggish", 256, 128),
        ("vggish", "vggish", 15, 10),
        # MusiCNN has 59 x 204 answers for each of 187 frames: 8.6 MiB.
        ("musicnn", "musicnn", 256, 29),
        ("musicnn", "musicnn", 1, 1),
    ],
)
def test_as_many_windows_are_scored_at_once_as_fit_into_memory(
    front_end, backbone, most, n_windows
):
    overrides = [f"front_end.name={front_end}", f"model.backbone.name={backbone}"]
    config = load_config(None, [*overrides, f"stream.evaluation_batch_mb={most}"])
    network = build_model(config, config.make_front_end(), ["tag"])
    assert windows_at_once(network, config.stream) == n_windows


def test_how_many_windows_are_scored_at_once_changes_no_score(tmp_path):
    store = make_store(tmp_path / "store", n_clips=8, n_windows=7)
    network = model(n_tags=3)
    found = []
    for most in ("stream.evaluation_batch_mb=1", "stream.evaluation_batch_mb=256"):
        config = load_config(None, [most]).stream
        found.append(score_clips(network, store, rows=[5, 0, 3], config=config))
    assert found[0].shape == (3, 3)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
