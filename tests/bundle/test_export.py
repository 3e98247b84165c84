"""Promises of exports: made at the end of training, checked against Keras, refused when wrong."""

import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from campaigns import quick_some
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_bundle import files_of, make_bundle, windows
from small_model import small_training
from small_store import small_config

import tagger.bundle.export
import tagger.bundle.write
from preprocess import log_mel_patches
from preprocess.store.store import Store
from tagger.base.errors import ConfigError, ModelError
from tagger.bundle.export import export_model, export_run
from tagger.bundle.exporters import EXPORTERS, LIMITS
from tagger.bundle.exporters.litert import LitertExporter
from tagger.bundle.exporters.onnx import OnnxExporter
from tagger.bundle.parity import (
    ParityWindows,
    embedding_difference,
    largest_difference,
    printable,
)
from tagger.bundle.read import Bundle
from tagger.bundle.runtime import Runtime
from tagger.bundle.write import add_export, parity_windows
from tagger.metrics.figures import best_f1_thresholds
from tagger.network.keras import tf
from tagger.network.model import build_model
from tagger.runs.folder import RunFolder
from tagger.tagging.tagger import Tagger
from tagger.train.loop import train
from tagger.train.score_clips import score_clips

RATE = 16000
EXPORTS = [
    ("litert", "none", "model.tflite"),
    ("litert", "float16", "model_float16.tflite"),
    ("litert", "dynamic", "model_dynamic.tflite"),
    ("onnx", "none", "model.onnx"),
    ("savedmodel", "none", "saved_model"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with a store and a short finished run, which nobody changes."""
    return small_training(tmp_path_factory)


@pytest.fixture
def run(trained, tmp_path, remembered_conversions):
    """A copy of the run that may be changed."""
    return shutil.copytree(trained / "run", tmp_path / "run")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "bundle"
    make_bundle(root, "model.backbone.name=vggish", "model.backbone.params.width=0.05")
    return root


@pytest.fixture
def bundle(small, tmp_path, remembered_conversions):
    """A bundle that may be changed."""
    return Bundle(shutil.copytree(small, tmp_path / "bundle"))


@pytest.fixture
def no_conversion(small, monkeypatch):
    """What is converted is the small bundle, and its file is there already."""

    def copy(self, model, path, quantize):
        shutil.copy(small / "model.tflite", path)

    monkeypatch.setattr(LitertExporter, "write", copy)


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """A bundle with every export, which nobody changes."""
    bundle = Bundle(shutil.copytree(small, tmp_path_factory.mktemp("exported") / "bundle"))
    for format_, quantize, _ in EXPORTS:
        add_export(bundle, format_=format_, quantize=quantize, windows=windows())
    return bundle


def keras_model(run):
    folder = RunFolder(run)
    config = folder.load_config()
    model = build_model(config, config.make_front_end(), folder.load_vocabulary().tags)
    model.load_weights(folder.best_weights)
    return model


def validation_rows(folder):
    run, store = RunFolder(folder / "run"), Store(folder / "store")
    return store, np.flatnonzero(run.load_parts(store.index) == "validation")


# At the end of training


def test_training_leaves_a_bundle_that_answers_as_keras_does(trained):
    bundle = Bundle(trained / "run" / "bundle")
    bundle.verify()
    store, rows = validation_rows(trained)
    clip = store.read(int(rows[0]))
    expected = keras_model(trained / "run").output_model(clip, training=False)
    found = Runtime(bundle.verified(bundle.export("litert").file))(clip)
    assert found.keys() == expected.keys() == {"scores", "pooled", "penultimate"}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name].numpy(), rtol=0, atol=1e-4, err_msg=name)
    (export,) = bundle.exports
    assert (export.format, export.quantize, export.limit) == ("litert", "none", 1e-4)
    assert export.max_difference <= 1e-4
    assert export.clips == "8 validation clips of store"


def test_the_bundle_says_what_was_trained(trained):
    run, bundle = RunFolder(trained / "run"), Bundle(trained / "run" / "bundle")
    assert bundle.name == "run"
    assert bundle.tags() == run.load_vocabulary().tags
    assert (bundle.root / "config.yaml").read_text() == run.config.read_text()
    assert (bundle.root / "weights.h5").read_bytes() == run.best_weights.read_bytes()
    best = bundle.metrics()["validation"]
    rows = [line.split(",") for line in run.metrics.read_text().splitlines()]
    history = [dict(zip(rows[0], map(float, row), strict=True)) for row in rows[1:]]
    chosen = max(history, key=lambda row: row["validation_pr_auc_macro"])
    assert best == {
        key: value
        for key, value in chosen.items()
        if key == "epoch" or key.startswith("validation_")
    }


def f1(labels, scores, threshold):
    taken = scores >= threshold
    return 2 * (taken & labels).sum() / (taken.sum() + labels.sum())


def best_f1(labels, scores):
    """Of every cut that can be made."""
    return max(f1(labels, scores, cut) for cut in np.unique(scores))


def test_the_thresholds_are_those_of_best_f1_on_the_validation_clips(trained):
    bundle = Bundle(trained / "run" / "bundle")
    store, rows = validation_rows(trained)
    config = RunFolder(trained / "run").load_config()
    model = keras_model(trained / "run")
    scores = score_clips(model, store, rows=[int(row) for row in rows], config=config.stream)
    labels = store.index.labels[rows] != 0
    thresholds = bundle.thresholds()
    assert len(thresholds) == 3
    for tag, threshold in enumerate(thresholds):
        reached = f1(labels[:, tag], scores[:, tag].astype(np.float64), threshold)
        assert reached == pytest.approx(best_f1(labels[:, tag], scores[:, tag]))
    np.testing.assert_array_equal(Tagger.load(trained / "run").thresholds, np.float32(thresholds))


# Few distinct scores, so that ties are common.
SCORES = hnp.arrays(np.float32, st.integers(1, 12), elements=st.sampled_from([0, 0.125, 0.5, 1.0]))


@given(scores=SCORES, data=st.data())
def test_no_threshold_has_a_higher_f1(scores, data):
    labels = data.draw(hnp.arrays(np.uint8, scores.shape, elements=st.integers(0, 1)))
    (threshold,) = best_f1_thresholds(labels[:, np.newaxis], scores[:, np.newaxis])
    if labels.all() or not labels.any():
        assert threshold is None
        return
    assert f1(labels != 0, scores, threshold) == pytest.approx(best_f1(labels != 0, scores))


@given(
    scores=hnp.arrays(
        np.float32, st.integers(2, 30), elements=st.floats(0, 1, width=16), unique=True
    ),
    data=st.data(),
)
def test_a_threshold_lies_between_two_scores(scores, data):
    labels = data.draw(hnp.arrays(np.uint8, scores.shape, elements=st.integers(0, 1)))
    (threshold,) = best_f1_thresholds(labels[:, np.newaxis], scores[:, np.newaxis])
    if threshold is not None and threshold > scores.min():
        assert threshold not in scores.astype(np.float64)


def test_each_tag_has_a_threshold_of_its_own():
    labels = np.array([[1, 0, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1]], dtype=np.uint8)
    scores = np.array([[0.9, 0.9, 0.2, 0.5], [0.7, 0.7, 0.4, 0.5], [0.5, 0.3, 0.1, 0.5]])
    # Of the second only taking all is right; of the last there are no negatives.
    assert best_f1_thresholds(labels, scores) == [
        pytest.approx(0.6),
        pytest.approx(0.15),
        pytest.approx(0.3),
        None,
    ]


def test_a_finished_run_is_not_exported_again(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "copy")
    before = files_of(folder / "run" / "bundle")
    train(small_config(folder, "stream.steps_per_epoch=6"), resume=True)
    assert export_run(folder / "run") == []
    assert files_of(folder / "run" / "bundle") == before


@pytest.mark.campaign
def test_other_weights_are_exported_anew(run):
    version = Bundle(run / "bundle").version
    model = keras_model(run)
    model.weights["block2_dense/bias"].assign_add([1.0, 2.0, 3.0])
    model.save_weights(run / "best.weights.h5")
    lines = export_run(run)
    assert lines[0].startswith(f"bundle: {run / 'bundle'} (version ")
    renewed = Bundle(run / "bundle")
    assert renewed.version != version
    assert (renewed.root / "weights.h5").read_bytes() == (run / "best.weights.h5").read_bytes()


@pytest.mark.parametrize(
    "damage", quick_some(["weights.h5", "model.tflite", "bundle.json"], ["model.tflite"])
)
def test_a_run_whose_bundle_is_damaged_gets_a_new_one(run, damage):
    before = Bundle(run / "bundle")
    (run / "bundle" / damage).write_bytes(b"damaged")
    assert export_run(run)
    Bundle(run / "bundle").verify()
    assert Bundle(run / "bundle").version == before.version


@pytest.mark.campaign
def test_a_run_that_starts_anew_keeps_no_bundle_of_the_one_before(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "copy")
    (folder / "run" / "run.json").unlink()
    before = Bundle(folder / "run" / "bundle").version
    train(small_config(folder, "train.seed=5", "train.epochs=1"))
    assert Bundle(folder / "run" / "bundle").version != before


@pytest.mark.parametrize("aggregate", quick_some(["max", "autopool"], ["autopool"]))
def test_pooling_over_time_survives_the_bundle(trained, tmp_path, monkeypatch, aggregate):
    shutil.copytree(trained / "store", tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(tagger.bundle.export, "export_run", lambda run, **_: [])
        train(
            small_config(
                tmp_path,
                f"model.aggregate={aggregate}",
                "stream.patches_per_bag=3",
                "train.epochs=1",
            )
        )
    run = tmp_path / "run"
    model = keras_model(run)
    if aggregate == "autopool":
        assert model.alpha.any()
        # Further from the mean than a short training comes.
        model.time_pooling.kernel.assign_add([[5.0, -20.0, 30.0]])
        model.save_weights(run / "best.weights.h5")
    assert export_run(run)
    bundle = Bundle(run / "bundle")
    assert bundle.aggregate == aggregate
    assert (bundle.alpha is None) == (aggregate == "max")
    waveform = np.random.default_rng(0).normal(0, 0.1, 5 * RATE) * np.linspace(0, 1, 5 * RATE) ** 4
    patches = log_mel_patches(waveform, RATE)
    expected = model.bag_scores({"log_mel": patches[np.newaxis]}, training=False).numpy()[0]
    prediction = Tagger.load(run).predict(waveform, RATE)
    np.testing.assert_allclose(prediction.scores, expected, rtol=0, atol=1e-4)
    assert np.abs(prediction.scores - prediction.taggram.mean(axis=0)).min() > 1e-3


def test_a_run_without_weights_says_what_is_missing(run):
    (run / "best.weights.h5").unlink()
    with pytest.raises(ModelError, match="has no weights yet; let an epoch of its training end"):
        export_run(run)


# The command


@pytest.mark.parametrize(
    ("format_", "quantize", "file"),
    [
        pytest.param(*case, marks=pytest.mark.campaign if case[1] == "float16" else ())
        for case in EXPORTS
    ],
)
def test_an_export_prints_and_stores_its_parity(run, command, format_, quantize, file):
    root = run
    code, out, _ = command("export", root, "--format", format_, "--quantize", quantize)
    assert code == 0
    bundle = Bundle(root / "bundle")
    bundle.verify()
    export = bundle.export(format_, quantize)
    assert export.file == file
    assert (root / "bundle" / file).exists()
    assert out.splitlines() == [f"{root / 'bundle' / file}", f"  {export.describe()}"]
    limit = {"none": 1e-4, "float16": 5e-3, "dynamic": 0.02}[quantize]
    assert export.limit == limit
    assert export.max_difference <= limit
    # Not a comparison of something with itself.
    assert quantize == "none" or export.max_difference > 0
    assert export.clips == "8 validation clips of store"
    assert export.n_windows == 48


@pytest.mark.parametrize(("format_", "quantize", "file"), EXPORTS)
def test_an_export_answers_as_keras_for_any_number_of_windows(exported, format_, quantize, file):
    model = tagger.bundle.write.load_model(exported)
    for n_windows in (1, 7):
        asked = windows(n_windows).windows
        expected = model.output_model(asked, training=False)["scores"].numpy()
        found = EXPORTERS.get(format_)().run(exported.root / file, asked)
        assert found.keys() == {"scores", "pooled", "penultimate"}
        np.testing.assert_allclose(found["scores"], expected, rtol=0, atol=LIMITS[quantize])


def test_quantized_models_are_smaller(exported):
    sizes = [
        (exported.root / file).stat().st_size
        for file in ("model_dynamic.tflite", "model_float16.tflite", "model.tflite")
    ]
    assert sizes == sorted(sizes)


def test_files_to_check_with_can_be_given(run, command, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "clip.wav", 0.1 * np.sin(np.arange(3 * RATE)), RATE)
    code, out, _ = command("export", run, "--clips", tmp_path / "clip.wav")
    assert code == 0
    assert "on 3 windows (1 files such as clip.wav)" in out


@pytest.mark.campaign
def test_a_run_whose_store_has_gone_is_checked_with_synthesised_clips(run, command):
    config = (run / "config.yaml").read_text()
    store = RunFolder(run).load_config().store.root
    (run / "config.yaml").write_text(config.replace(str(store), str(run / "nowhere")))
    code, out, _ = command("export", run, "--quantize", "float16")
    assert code == 0
    assert "(8 synthesised clips)" in out


def test_a_network_that_differs_is_an_error_and_changes_nothing(run, command, monkeypatch):
    before = files_of(run)
    answer = LitertExporter.run

    def differ(self, path, asked):
        return {name: array + 1e-3 for name, array in answer(self, path, asked).items()}

    monkeypatch.setattr(LitertExporter, "run", differ)
    code, out, err = command("export", run)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: model.tflite: the exported model's scores differ from Keras by up to 0.001 on "
        "8 validation clips of store, more than 0.0001; use another --format"
    ]
    assert files_of(run) == before


@pytest.mark.parametrize(
    ("quantize", "limit"), [("none", 1e-4), ("float16", 5e-3), ("dynamic", 0.02)]
)
def test_the_limit_is_drawn_where_it_is_said(bundle, monkeypatch, no_conversion, quantize, limit):
    def export(difference):
        monkeypatch.setattr(tagger.bundle.write, "largest_difference", lambda *_: difference)
        return add_export(bundle, format_="litert", quantize=quantize, windows=windows())

    with pytest.raises(ModelError, match="differ from Keras"):
        export(limit * 1.01)
    assert export(limit * 0.99).max_difference == limit * 0.99


def test_a_bundle_is_not_written_for_a_network_that_differs(tmp_path, monkeypatch, no_conversion):
    monkeypatch.setattr(tagger.bundle.write, "largest_difference", lambda *_: 0.5)
    with pytest.raises(ModelError, match=r"model\.tflite: .* more than 0\.0001"):
        make_bundle(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format_", "quantize"),
    [("onnx", "dynamic"), ("savedmodel", "float16")],
)
def test_a_quantization_that_a_format_does_not_have_is_refused(small, format_, quantize):
    with pytest.raises(ConfigError, match=f"--quantize {quantize}: {format_} has none; choose"):
        export_model(str(small), format_=format_, quantize=quantize)


def network_of(n_parameters):
    return SimpleNamespace(output_model=SimpleNamespace(count_params=lambda: n_parameters))


def test_onnx_refuses_large_networks_before_it_converts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ModelError, match=r"model\.onnx: .* 50,000,001 parameters .* litert"):
        OnnxExporter().write(network_of(50_000_001), tmp_path / "model.onnx", "none")


def test_onnx_takes_networks_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ModuleNotFoundError, match="tf2onnx"):
        OnnxExporter().write(network_of(50_000_000), tmp_path / "model.onnx", "none")


def test_a_saved_model_holds_no_keras_objects(exported):
    from tensorflow.core.protobuf import saved_model_pb2

    root = exported.root / "saved_model"
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((root / "saved_model.pb").read_bytes())
    nodes = saved.meta_graphs[0].object_graph_def.nodes
    assert {node.user_object.identifier for node in nodes if node.HasField("user_object")} <= {
        "_generic_user_object",
        "trackable_list_wrapper",
        "signature_map",
    }
    assert not (root / "keras_metadata.pb").exists()
    operations = {
        node.op for f in saved.meta_graphs[0].graph_def.library.function for node in f.node_def
    }
    assert "Conv2D" in operations
    assert not {name for name in operations if "PyFunc" in name}


def test_a_saved_model_serves_named_windows(exported):
    serve = tf.saved_model.load(str(exported.root / "saved_model")).signatures["serving_default"]
    ((), inputs) = serve.structured_input_signature
    assert {name: spec.shape.as_list() for name, spec in inputs.items()} == {
        "log_mel": [None, 96, 64]
    }


def test_an_export_within_the_folder_of_the_bundle_works(bundle, monkeypatch):
    monkeypatch.chdir(bundle.root)
    export_model(".", format_="litert", quantize="float16")
    assert "model_float16.tflite" in os.listdir()  # noqa: PTH208
    Bundle(bundle.root).verify()


# Parity


def outputs(**arrays):
    return {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}


def test_the_difference_is_that_of_the_scores():
    reference = outputs(scores=[[0.1, 0.9]], pooled=[[5.0]])
    assert largest_difference(reference, outputs(scores=[[0.1, 0.7]], pooled=[[5.0]])) == (
        pytest.approx(0.2)
    )


def test_without_scores_the_difference_is_that_of_the_embeddings():
    reference = outputs(pooled=[[1.0, 2.0]], embedding=[[0.0]])
    assert largest_difference(reference, outputs(pooled=[[1.0, 2.5]], embedding=[[0.25]])) == 0.5


def test_embeddings_are_compared_with_their_largest_value():
    reference = outputs(scores=[[0.1]], pooled=[[50.0, 100.0]], zero=[[0.0]])
    exported = outputs(scores=[[0.9]], pooled=[[51.0, 100.0]], zero=[[0.0]])
    assert embedding_difference(reference, exported) == pytest.approx(0.01)
    assert embedding_difference(reference, outputs(pooled=[[1.0, 2.0]], zero=[[np.nan]])) == np.inf
    assert embedding_difference(outputs(scores=[[0.1]]), outputs(scores=[[0.9]])) == 0


def test_an_export_whose_embeddings_are_others_is_refused(bundle, monkeypatch, no_conversion):
    before = files_of(bundle.root)
    answer = LitertExporter.run

    def differ(self, path, asked):
        found = answer(self, path, asked)
        return {**found, "pooled": found["pooled"] * 1.001}

    monkeypatch.setattr(LitertExporter, "run", differ)
    with pytest.raises(ModelError, match=r"model\.tflite: .* embeddings differ .* up to 0\.001 of"):
        add_export(bundle, format_="litert", windows=windows())
    assert files_of(bundle.root) == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_differs_beyond_any_limit(value):
    reference = outputs(scores=[[0.1, 0.9]])
    assert largest_difference(reference, outputs(scores=[[0.1, value]])) == np.inf
    assert largest_difference(outputs(scores=[[0.1, value]]), reference) == np.inf


@pytest.mark.parametrize(
    "exported",
    [
        outputs(scores=[[0.1, 0.9]]),
        outputs(scores=[[0.1, 0.9]], pooled=[[1.0]], more=[[1.0]]),
        outputs(scores=[[0.1]], pooled=[[1.0]]),
        outputs(scores=[[0.1, 0.9], [0.1, 0.9]], pooled=[[1.0]]),
        outputs(scores=[[0.1, 0.9]], pooled=[1.0]),
    ],
)
def test_other_outputs_than_those_of_keras_are_refused(exported):
    reference = outputs(scores=[[0.1, 0.9]], pooled=[[1.0]])
    with pytest.raises(ModelError, match="the exported model gives"):
        largest_difference(reference, exported)


def test_of_many_windows_some_of_all_the_clip_are_asked(trained):
    front_end = RunFolder(trained / "run").load_config().make_front_end()
    asked = parity_windows(front_end)
    assert isinstance(asked, ParityWindows)
    assert asked.source == "8 synthesised clips"
    assert len(asked) == 64
    assert asked.windows["log_mel"].dtype == np.float32


def test_a_name_that_is_no_unicode_can_be_written_into_a_bundle():
    assert printable(os.fsdecode(b"caf\xe9.wav")).encode() == b"caf?.wav"
