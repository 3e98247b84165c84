"""Promises of protocols: published clips and tags by rule, leakage, errors that come together."""

import json
import shutil

import numpy as np
import pytest
from small_bundle import TAGS, make_bundle
from small_model import small_run
from small_store import make_store
from tiny_corpus import TINY_TAGS

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.vocabulary import Vocabulary
from tagger.base.errors import ConfigError, ModelError
from tagger.config import load_config
from tagger.evaluate.evaluate import evaluate_model, evaluate_run, evaluate_scores
from tagger.evaluate.leakage import find_leakage
from tagger.evaluate.protocols import PROTOCOLS, Selection
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.confusion import find_confusion

# What a report shows is tested elsewhere.
pytestmark = pytest.mark.usefixtures("without_pictures")

REFERENCE = "magnatagatune/reference/musicnn_mtat_won_test.npz"
OWN = Selection(np.empty(0, dtype=str), Vocabulary((), ()))


@pytest.fixture(scope="module")
def magnatagatune(shared):
    return DATASETS.create("magnatagatune", {}).index(shared / "magnatagatune")


@pytest.fixture(scope="module")
def data(shared):
    """Config of MagnaTagATune's annotations."""
    return load_config(None, [f"data.root={shared / 'magnatagatune'}"])


# Which clips and tags


def test_wons_clips_and_tags_are_the_published_ones(shared, magnatagatune):
    chosen = PROTOCOLS.create("won", {}).select(magnatagatune, OWN)
    published = (shared / "magnatagatune" / "top50_tags.txt").read_text().splitlines()
    assert list(chosen.vocabulary.tags) == published
    for part in ("train", "validation", "test"):
        rows = (shared / "magnatagatune" / "splits" / f"won_{part}.txt").read_text().split()
        assert np.flatnonzero(chosen.parts == part).tolist() == list(map(int, rows))


def test_ponss_clips_are_all_but_the_corrupt_ones(magnatagatune):
    chosen = PROTOCOLS.create("pons", {}).select(magnatagatune, OWN)
    counts = [int((chosen.parts == part).sum()) for part in ("train", "validation", "test")]
    assert counts == [18_706, 1_825, 5_329]
    won = PROTOCOLS.create("won", {}).select(magnatagatune, OWN)
    assert chosen.vocabulary == won.vocabulary
    test = chosen.parts == "test"
    labels = chosen.vocabulary.labels(magnatagatune.labels[test], magnatagatune.tags)
    assert labels.mean() == pytest.approx(0.0531, abs=5e-5)


def test_all_has_every_tag_of_the_data(magnatagatune):
    chosen = PROTOCOLS.create("all", {}).select(magnatagatune, OWN)
    assert chosen.vocabulary.tags == magnatagatune.tags and len(chosen.vocabulary) == 188


def test_own_is_what_the_model_was_made_with(magnatagatune):
    assert PROTOCOLS.create("own", {}).select(magnatagatune, OWN) is OWN


@pytest.mark.parametrize("name", ["won", "pons"])
def test_data_with_too_few_tags_are_none_of_magnatagatunes_protocols(name):
    index = ClipIndex(("a",), [ClipRecord("1", "d/1.mp3")], np.ones((1, 1), np.uint8))
    with pytest.raises(ConfigError, match=f"protocol '{name}' needs 50 tags, but .* has 1"):
        PROTOCOLS.create(name, {}).select(index, OWN)


def test_a_new_protocol_is_one_file(tmp_path, monkeypatch, run):
    import importlib

    import tagger.evaluate.protocols

    code = """
from tagger.evaluate.protocols import Protocol, Selection


class First(Protocol):
    summary = "the model's own split, its first tag"

    def select(self, index, own):
        first = type(own.vocabulary)(own.vocabulary.tags[:1], own.vocabulary.members[:1])
        return Selection(own.parts, first)


ENTRY = First
"""
    (tmp_path / "first.py").write_text(code)
    monkeypatch.setattr(
        tagger.evaluate.protocols, "__path__", [*tagger.evaluate.protocols.__path__, str(tmp_path)]
    )
    importlib.invalidate_caches()
    evaluation = evaluate_run(run, protocol="first", n_draws=0)
    assert evaluation.tags == ("tag 0",) and evaluation.protocol.name == "first"


# Files of scores


def test_the_reference_has_the_published_figures_beside_its_own(shared, data):
    evaluation = evaluate_scores(shared / REFERENCE, protocol="won", config=data, n_draws=0)
    summary = evaluation.measured.metrics.summary
    assert round(summary["roc_auc_macro"], 4) == 0.9109
    assert round(summary["pr_auc_macro"], 4) == 0.4509
    lines = evaluation.table().splitlines()
    assert "musicnn                    0.9109   0.4509" in lines
    assert "short-chunk CNN + Res      0.9129   0.4614" in lines
    assert "this evaluation            0.9109   0.4509" in lines
    assert evaluation.tags[47:49] == ("metal", "female voice")
    assert not evaluation.notes


def test_the_folder_split_shares_no_tracks_but_45_artists(shared, data):
    leakage = evaluate_scores(shared / REFERENCE, protocol="won", config=data, n_draws=0).to_json()[
        "leakage"
    ]
    found = {(i["group"], i["first"], i["second"]): i["n_shared"] for i in leakage["shared"]}
    assert found["track", "train", "test"] == 0
    assert found["artist", "train", "test"] == 45


def test_scores_are_checked_against_the_labels_of_the_protocol(shared, data, tmp_path):
    with np.load(shared / REFERENCE) as archive:
        est, gt = archive["est"], archive["gt"]
    np.savez(tmp_path / "a.npz", est=est, gt=gt[::-1])
    with pytest.raises(ModelError, match="the labels of column 0 are not those of 'guitar'"):
        evaluate_scores(tmp_path / "a.npz", protocol="won", config=data)


def test_without_the_annotations_it_is_said_that_labels_were_not_checked(shared):
    evaluation = evaluate_scores(shared / REFERENCE, protocol="won", n_draws=0)
    assert evaluation.protocol.published and "were not checked" in evaluation.notes[0]


def test_of_a_protocol_without_a_number_of_clips_nothing_is_claimed(tmp_path):
    np.savez(tmp_path / "a.npz", est=np.eye(4), gt=np.eye(4))
    (note,) = evaluate_scores(tmp_path / "a.npz", protocol="all", n_draws=0).notes
    assert note.startswith("neither clips and tags nor their labels were checked")


def test_scores_of_another_number_of_clips_are_none_of_the_protocol(shared):
    with pytest.raises(ModelError, match=r"4332 clips and 50 tags, but .*'pons' has \(5329, 50\)"):
        evaluate_scores(shared / REFERENCE, protocol="pons")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "data.root=x"], "--set means nothing for a file of scores without a --prot"),
        (["--config", "x.yaml"], "--config means nothing for a file of scores without a --prot"),
        (["--part", "test"], "--part means nothing for a file of scores; leave it out"),
        (["--store", "x"], "--store means nothing for a file of scores; leave it out"),
        (["--output", "x"], "--output means nothing for a file of scores; leave it out"),
        (["--protocol", "x"], "--protocol x: choose one of all, own, pons, won"),
    ],
)
def test_options_that_would_be_ignored_are_refused(command, tmp_path, arguments, said):
    np.savez(tmp_path / "a.npz", est=np.eye(2), gt=np.eye(2))
    code, out, err = command("evaluate", tmp_path / "a.npz", *arguments)
    assert (code, out) == (2, "") and err.startswith(f"error: {said}")


# Bundles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "small").root


def rename_tags(corpus):
    """The tiny corpus with the tags of the small bundle."""
    path = corpus / "annotations_final.csv"
    text = path.read_bytes().decode()
    for old, new in zip(TINY_TAGS, TAGS, strict=True):
        text = text.replace(f'"{old}"', f'"{new}"', 1)
    path.write_bytes(text.encode())


def test_a_bundle_is_measured_on_the_audio_of_a_data_set(bundle, tiny_corpus, tmp_path):
    from tagger.tagging.tagger import Tagger

    rename_tags(tiny_corpus)
    evaluation = evaluate_model(
        str(bundle), overrides=[f"data.root={tiny_corpus}"], output=tmp_path / "out", n_draws=0
    )
    assert list(evaluation.clips.ids) == ["15", "16", "17"]
    assert evaluation.clips.artists == ["cid", "cid", "dot"]
    with np.load(tmp_path / "out" / "scores.npz") as archive:
        scores, labels = archive["est"], archive["gt"]
    assert labels.tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    paths = [tiny_corpus / path for path in evaluation.clips.paths]
    expected = [prediction.scores for prediction in Tagger.load(bundle).predict_many(paths)]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == json.loads(json.dumps(evaluation.to_json()))
    # Thresholds come from the bundle.
    assert [tag["threshold"] for tag in written["tags"]] == [0.25, None, 0.75]


def test_tags_of_the_model_that_the_data_lack_are_named(bundle, tiny_corpus, tmp_path):
    rename_tags(tiny_corpus)
    path = tiny_corpus / "annotations_final.csv"
    path.write_bytes(path.read_bytes().replace(b'"tag 1"', b'"other"', 1))
    evaluation = evaluate_model(
        str(bundle), overrides=[f"data.root={tiny_corpus}"], output=tmp_path / "out", n_draws=0
    )
    assert evaluation.tags == ("tag 0", "tag 2")
    assert "1 (tag 1) of the model's tags not in the data: left out" in evaluation.notes


def test_a_model_without_any_tag_of_the_data_is_refused(bundle, tiny_corpus, tmp_path):
    with pytest.raises(ModelError, match="none of its tags"):
        evaluate_model(str(bundle), overrides=[f"data.root={tiny_corpus}"], output=tmp_path)


def test_a_clip_that_cannot_be_read_is_left_out_and_named(bundle, tiny_corpus, tmp_path, command):
    rename_tags(tiny_corpus)
    broken = next((tiny_corpus / "d").glob("*.mp3"))
    broken.write_bytes(b"")
    code, out, err = command(
        "evaluate", bundle, "--set", f"data.root={tiny_corpus}", "-o", tmp_path / "out"
    )
    assert code == 1
    assert "note: 1 of 3 clips could not be read and are left out" in out
    assert f"failed: {broken}" in err


def test_a_bundle_is_measured_on_the_patches_of_a_store(bundle, tmp_path):
    store = make_store(tmp_path / "store", n_clips=32)
    evaluation = evaluate_model(
        str(bundle), store=tmp_path / "store", output=tmp_path / "out", n_draws=0
    )
    from tagger.bundle.read import Bundle
    from tagger.bundle.write import load_model

    model = load_model(Bundle(bundle))
    rows = [row for row, clip in enumerate(store.index.clips) if clip.folder == "d"]
    assert list(evaluation.clips.ids) == [store.index.clips[row].id for row in rows]
    with np.load(tmp_path / "out" / "scores.npz") as archive:
        scores = archive["est"]
    for row, found in zip(rows, scores, strict=True):
        windows = {name: np.float32(array) for name, array in store.read(row).items()}
        expected = model.clip_head(model.window_outputs(windows, ["scores"]))
        np.testing.assert_allclose(found, expected, atol=1e-5)


# Runs


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    """A trained run."""
    return shutil.copytree(small_run(tmp_path_factory), tmp_path / "run")


def test_a_run_is_measured_by_another_protocol_beside_its_own(run):
    own = evaluate_run(run, n_draws=0)
    other = evaluate_run(run, protocol="all", n_draws=0)
    assert other.files["scores"] == run / "evaluation" / "all-test" / "scores.npz"
    # The same tags and, by folder, the same clips.
    assert (
        other.measured.metrics.summary["pr_auc_macro"]
        == own.measured.metrics.summary["pr_auc_macro"]
    )


def test_clips_of_a_protocol_that_the_run_was_trained_on_are_counted(run):
    path = run / "split.csv"
    path.write_text(path.read_text().replace(",test", ",train"))
    notes = evaluate_run(run, protocol="all", n_draws=0).notes
    assert "16 of these clips are among those that the model was trained on" in notes


@pytest.mark.parametrize("protocol", ["own", "all"])
def test_figures_of_clips_that_chose_the_weights_are_called_optimistic(run, protocol, command):
    said = (
        "16 of these clips chose the weights, thresholds and calibration: figures of them are "
        "optimistic"
    )
    arguments = ("evaluate", run, "--protocol", protocol, "--part", "validation", "--draws", "0")
    code, out, _ = command(*arguments)
    assert code == 0 and f"note: {said}" in " ".join(out.split())
    folder = run / "evaluation" / ("validation" if protocol == "own" else "all-validation")
    assert said in json.loads((folder / "metrics.json").read_text())["notes"]
    assert said in (folder / "report.md").read_text()


def test_figures_of_test_clips_are_not_called_optimistic(run):
    assert not any("optimistic" in note for note in evaluate_run(run, n_draws=0).notes)


def test_of_a_bundle_it_is_said_whose_split_says_so(bundle, tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    notes = evaluate_model(
        str(bundle), store=tmp_path / "store", part="validation", output=tmp_path, n_draws=0
    ).notes
    assert notes[0].endswith("figures of them are optimistic (by the split of the config)")


def test_a_calibrated_run_is_measured_as_it_tags_and_its_error_before_is_told(run):
    from tagger.metrics.calibration import Calibration, Temperature

    before = evaluate_run(run, n_draws=0)
    calibration = Calibration("temperature", (Temperature(0.5), None, Temperature(2.0)))
    (run / "calibration.json").write_text(json.dumps(calibration.to_json()))
    after = evaluate_run(run, n_draws=0)
    assert (
        after.measured.metrics.summary["pr_auc_macro"]
        == before.measured.metrics.summary["pr_auc_macro"]
    )
    content = after.to_json()["calibration"]
    assert content["method"] == "temperature"
    assert content["reliability_before"] == before.to_json()["calibration"]["reliability"]
    assert content["reliability"] != content["reliability_before"]
    with np.load(after.scores) as archive:
        again = archive["est"]
    assert (
        evaluate_scores(after.scores, n_draws=0).measured.reliability.score_sum
    ).sum() == pytest.approx(again.sum())


# Leakage


def index_of(clips):
    records = [
        ClipRecord(str(number), f"{number}.mp3", track=track, artist=artist)
        for number, (track, artist) in enumerate(clips)
    ]
    return ClipIndex(("a",), records, np.ones((len(records), 1), np.uint8))


def test_clips_whose_track_or_artist_is_on_both_sides_are_counted():
    index = index_of([("s", "x"), ("t", "y"), ("s", "x"), ("u", "x"), ("v", ""), ("w", "")])
    parts = np.array(["train", "train", "test", "test", "test", "train"])
    found = find_leakage(index, parts)
    track = found.between("track", "train", "test")
    assert (track.n_shared, track.n_clips, track.n_second) == (1, 1, 3)
    artist = found.between("artist", "train", "test")
    # Clips without an artist share none.
    assert (artist.n_shared, artist.n_clips) == (1, 2)
    assert found.unknown == ("album",)
    assert "1 artists are in train and test: 2 of 3 test clips" in found.lines("test")


def test_what_nothing_leaks_through_is_told_in_one_line():
    index = index_of([("s", "x"), ("t", "y"), ("u", "z")])
    lines = find_leakage(index, np.array(["train", "validation", "test"])).lines("test")
    assert lines == [
        "no track or artist of test is in train or validation",
        "not known for these clips: album",
    ]


def test_clips_in_no_part_leak_nothing():
    index = index_of([("s", "x"), ("s", "x")])
    assert find_leakage(index, np.array(["train", ""])).shared == ()


# Errors that come together


def test_errors_of_two_tags_on_the_same_clip_are_counted():
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 5)) < 0.4).astype(np.uint8)
    scores = np.where(rng.random(labels.shape) < 0.8, labels, 1 - labels).astype(np.float64)
    found = find_confusion(ArrayColumns(labels, scores), np.full(5, 0.5))
    missed, wrong = (labels == 1) & (scores < 0.5), (labels == 0) & (scores >= 0.5)
    np.testing.assert_array_equal(found.n_both, missed.T.astype(int) @ wrong.astype(int))
    assert found.n_missed.tolist() == missed.sum(axis=0).tolist()
    assert found.n_wrong.tolist() == wrong.sum(axis=0).tolist()


def test_a_tag_that_is_taken_for_another_is_the_top_pair_and_chance_is_none():
    rng = np.random.default_rng(1)
    labels = (rng.random((20_000, 4)) < 0.3).astype(np.uint8)
    said = np.where(rng.random(labels.shape) < 0.9, labels, 1 - labels)
    # Half of the clips of tag 2 that lack tag 0 are called tag 0.
    taken = (labels[:, 2] == 1) & (labels[:, 0] == 0) & (rng.random(20_000) < 0.5)
    said[taken, 2], said[taken, 0] = 0, 1
    found = find_confusion(ArrayColumns(labels, said.astype(float)), np.full(4, 0.5))
    assert found.top_pairs(1) == [(2, 0)]
    assert found.lift()[2, 0] > 2
    assert abs(found.excess()[1, 3]) < 4


def test_a_tag_without_a_threshold_makes_no_errors():
    labels = np.eye(4, dtype=np.uint8)
    found = find_confusion(ArrayColumns(labels, 1.0 - labels), np.array([0.5, np.nan, 0.5, 0.5]))
    assert found.n_missed.tolist() == [1, 0, 1, 1] and found.n_wrong.tolist() == [3, 0, 3, 3]
    assert found.n_both[:, 1].tolist() == [0, 0, 0, 0]
