"""Promises of the classical classifiers: chosen on grouped folds, kept as ONNX, run as fitted."""

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tagger.base.errors import ConfigError, ModelError
from tagger.classifiers import onnx_file
from tagger.classifiers.fitting import fit_classifier
from tagger.classifiers.kinds import CLASSIFIERS
from tagger.classifiers.onnx_file import onnx_of
from tagger.classifiers.onnx_scorer import OnnxScorer
from tagger.scoring.clip_heads import CLIP_HEADS, load_clip_head, save_clip_head

NAMES = [
    "gradient_boosting",
    "linear_svm",
    "logistic_regression",
    "nearest_neighbours",
    "random_forest",
    "rbf_svm",
    "xgboost",
]
RNG = np.random.default_rng(0)
N_CLIPS, N_FEATURES = 90, 12
FEATURES = (RNG.normal(size=(N_CLIPS, N_FEATURES)) * RNG.uniform(0.1, 50, N_FEATURES)).astype(
    np.float32
) + 100
SCALED = (FEATURES - FEATURES.mean(axis=0)) / FEATURES.std(axis=0)
GROUPS = [str(number // 2) for number in range(N_CLIPS)]
FIRST = (SCALED[:, :3] + RNG.normal(size=(N_CLIPS, 3)) / 2).argmax(axis=1)
# The last label has no clip.
ONE_LABEL = np.eye(4, dtype=np.uint8)[FIRST]
# Tag 1 is of a single clip, tag 2 of none, tag 3 of all.
TAGS = np.stack(
    [
        SCALED[:, 0] > 0.3,
        np.arange(N_CLIPS) == 5,
        np.zeros(N_CLIPS),
        np.ones(N_CLIPS),
        SCALED[:, 1] + SCALED[:, 2] > 0,
    ],
    axis=1,
).astype(np.uint8)
QUICK = {"gradient_boosting": {"trees": 20}, "random_forest": {"trees": 20}, "xgboost": {}}


def fitted(name, labels, *, one_label, **params):
    classifier = CLASSIFIERS.create(name, QUICK.get(name, {}) | params)
    return fit_classifier(classifier, FEATURES, labels, groups=GROUPS, one_label=one_label)


def test_classifiers_are_found_by_name():
    assert CLASSIFIERS.names() == NAMES


@pytest.mark.parametrize("one_label", [True, False], ids=["one label", "tags"])
@pytest.mark.parametrize("name", NAMES)
def test_onnx_says_what_scikit_learn_says(name, one_label):
    labels = ONE_LABEL if one_label else TAGS
    found = fitted(name, labels, one_label=one_label, pca=8 if name == "rbf_svm" else None)
    content, parity = onnx_of(found, FEATURES, one_label=one_label)
    assert parity.largest <= 1e-5 and (parity.n_changed, parity.n_rows) == (0, N_CLIPS)
    assert "differ by at most" in str(parity)
    scorer = OnnxScorer(content, n_features=N_FEATURES, n_labels=labels.shape[1])
    # Also of clips that it has never seen.
    others = FEATURES[::-1] * 0.7 + FEATURES * 0.3
    scores, theirs = scorer(others), found.scores(others)
    np.testing.assert_allclose(scores, theirs, atol=1e-5)
    assert scores.dtype == np.float32
    known = scorer(FEATURES)
    if one_label:
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert (known.argmax(axis=1) == FIRST).mean() > 0.6
        assert (scores[:, 3] == 0).all()
    else:
        np.testing.assert_allclose(scores[:, 2], 0.5 / (N_CLIPS + 1), atol=1e-6)
        np.testing.assert_allclose(scores[:, 3], (N_CLIPS + 0.5) / (N_CLIPS + 1), atol=1e-6)
        assert known[labels[:, 0] == 1, 0].mean() > known[labels[:, 0] == 0, 0].mean() + 0.2


@pytest.mark.parametrize("name", ["rbf_svm", "xgboost", "logistic_regression"])
@pytest.mark.parametrize("one_label", [True, False], ids=["two labels", "a single tag"])
def test_two_labels_and_a_single_tag_are_learned(name, one_label):
    labels = np.stack([FIRST == 0, FIRST != 0], axis=1).astype(np.uint8)
    labels = labels if one_label else labels[:, :1]
    found = fitted(name, labels, one_label=one_label)
    content, _ = onnx_of(found, FEATURES, one_label=one_label)
    scores = OnnxScorer(content, n_features=N_FEATURES, n_labels=labels.shape[1])(FEATURES)
    assert ((scores[:, 0] > 0.5) == (FIRST == 0)).mean() > 0.7


@pytest.mark.parametrize("name", ["rbf_svm", "logistic_regression", "nearest_neighbours"])
def test_of_very_few_clips_nothing_is_chosen_and_all_is_learned(name):
    few = fit_classifier(
        CLASSIFIERS.create(name, {"pca": 50}),
        FEATURES[:4],
        np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.uint8),
        groups=["a", "a", "b", "b"],
        one_label=True,
    )
    assert "in its folds" not in few.found
    content, _ = onnx_of(few, FEATURES[:4], one_label=True)
    assert OnnxScorer(content, n_features=N_FEATURES, n_labels=2)(FEATURES[:4]).shape == (4, 2)


def test_parameters_are_chosen_on_clips_of_other_groups():
    rng = np.random.default_rng(1)
    # Clips of a group are nearly the same, and labels are chance: next to its sister no clip errs.
    rows = np.repeat(rng.normal(size=(30, 6)), 3, axis=0) + rng.normal(size=(90, 6)) / 1e3
    labels = np.repeat(np.eye(2, dtype=np.uint8)[rng.integers(0, 2, 30)], 3, axis=0)
    near = CLASSIFIERS.create("nearest_neighbours", {"k": [15, 1]})

    def accuracy(groups):
        found = fit_classifier(near, rows, labels, groups=groups, one_label=True).found
        return float(found.split("accuracy ")[1].split()[0])

    assert accuracy([str(number) for number in range(90)]) > 0.95
    assert accuracy([str(number // 3) for number in range(90)]) < 0.75


def test_labels_that_all_clips_carry_or_none_are_refused():
    with pytest.raises(ConfigError, match="no label is carried by some clips and not by others"):
        fitted("xgboost", TAGS[:, 2:4], one_label=False)


def test_a_model_that_onnx_does_not_repeat_is_not_kept(monkeypatch):
    found = fitted("rbf_svm", ONE_LABEL, one_label=True)
    monkeypatch.setattr(onnx_file, "LARGEST_DIFFERENCE", 0)
    with pytest.raises(ModelError, match=r"differ by at most .*choose another classifier"):
        onnx_of(found, FEATURES, one_label=True)


# As a clip head


def a_head(over="statistics", *, n_clips=24, classifier="logistic_regression"):
    """A fitted head; each clip's windows, features, labels."""
    rng = np.random.default_rng(2)
    head = CLIP_HEADS.create(
        "classifier",
        {"classifier": classifier, "over": over, "layers": ["a"], "link": "softmax"},
    )
    kind = np.arange(n_clips) % 2
    clips = [
        {"a": (rng.normal(size=(4 + clip % 3, 5)) + 3 * kind[clip]).astype(np.float32)}
        for clip in range(n_clips)
    ]
    features = head.together([head.features(clip) for clip in clips])
    labels = np.eye(2, dtype=np.uint8)[kind]
    (head,) = head.fits(features, labels)
    return head, clips, features, labels


@pytest.mark.parametrize("over", ["statistics", "windows", "vote"])
def test_a_clip_is_scored_by_its_statistics_its_windows_or_their_votes(over):
    head, clips, features, labels = a_head(over)
    scores = head.scores(features)
    assert (scores.argmax(axis=1) == labels.argmax(axis=1)).mean() > 0.9
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(head(clips[3]), scores[3], atol=1e-6)
    over_time = head.over_time(clips[3], hop_seconds=1.0)
    assert over_time.shape == (4, 2)
    np.testing.assert_allclose(over_time.mean(axis=0), scores[3], atol=1e-6)
    if over == "vote":
        assert set(np.unique(over_time)) <= {0, 1}


def test_a_saved_head_is_read_as_it_was(tmp_path):
    head, _, features, _ = a_head(classifier="xgboost")
    save_clip_head(head, tmp_path / "head.npz")
    read = load_clip_head(tmp_path / "head.npz", sizes={"a": 5}, n_tags=2)
    assert (read.params, read.describe()) == (head.params, head.describe())
    np.testing.assert_array_equal(read.scores(features), head.scores(features))


def rewritten(change):
    """Model of a head, after `change` has been made to it."""
    model = onnx.load_from_string(a_head()[0].content)
    change(model)
    return model.SerializeToString()


def other_opset(model):
    model.opset_import[0].version = 99


def other_file(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def loop(model):
    model.graph.node.append(helper.make_node("Loop", ["a", "b"], ["c"]))


def no_probabilities(model):
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "constant")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(2, np.nan, np.float32), "constant"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "no ONNX model"),
        (lambda: a_head()[0].content[:-40], "ends too early|no ONNX model"),
        (lambda: b"\xff" * 200, "ends too early|no ONNX model"),
        (lambda: rewritten(other_opset), "needs version 99 of the operators"),
        (lambda: rewritten(other_file), "refers to another file"),
        (lambda: rewritten(loop), "the operator 'Loop'"),
        (lambda: rewritten(no_probabilities), "no probabilities"),
    ],
    ids=["empty", "cut", "noise", "opset", "another file", "loop", "nan"],
)
def test_a_model_that_is_damaged_or_asks_for_more_is_refused_in_one_line(tmp_path, content, reason):
    head = a_head()[0]
    head.content = content()
    save_clip_head(head, tmp_path / "head.npz")
    with pytest.raises(
        ModelError, match=rf"head.npz: does not fit .*({reason}).*; train, export or pull the"
    ) as caught:
        load_clip_head(tmp_path / "head.npz", sizes={"a": 5}, n_tags=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("sizes", "n_tags"), [({"a": 6}, 2), ({"a": 5}, 3)])
def test_a_model_of_other_features_or_labels_is_refused(tmp_path, sizes, n_tags):
    save_clip_head(a_head()[0], tmp_path / "head.npz")
    with pytest.raises(ModelError, match=r"makes \[2\] labels of \[15\] features"):
        load_clip_head(tmp_path / "head.npz", sizes=sizes, n_tags=n_tags)


def test_what_a_head_is_kept_in_holds_numbers_and_texts_alone():
    file = io.BytesIO()
    np.savez(file, **a_head()[0].arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as content:
        assert {content[name].dtype.kind for name in content.files} == {"u", "U"}


def test_an_unknown_classifier_and_its_parameters_are_refused_by_name():
    with pytest.raises(ConfigError, match="unknown classifier 'svm'; known: gradient_boosting"):
        CLIP_HEADS.create("classifier", {"classifier": "svm"})
    with pytest.raises(ConfigError, match="depht: unknown key"):
        CLIP_HEADS.create(
            "classifier", {"classifier": "xgboost", "classifier_params": {"depht": [2]}}
        )
