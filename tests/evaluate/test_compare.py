"""Promises of `tagger compare`: clips and tags are matched, chance is told from difference."""

import json

import numpy as np
import pytest

from tagger.base.errors import ModelError
from tagger.evaluate.compare import compare

N_CLIPS, N_TAGS = 300, 4
IDS = np.array([f"clip {number}" for number in range(N_CLIPS)])
TAGS = np.array(["a", "b", "c", "d"])


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    labels = (rng.random((N_CLIPS, N_TAGS)) < 0.3).astype(np.uint8)
    scores = labels + rng.normal(0, 1, labels.shape)
    return labels, scores, scores + labels


def save(path, labels, scores, **names):
    np.savez(path, gt=labels, est=scores, **names)
    return path


def test_a_better_model_is_called_better_and_itself_is_not(case, tmp_path):
    labels, worse, better = case
    a = save(tmp_path / "a.npz", labels, worse)
    found = compare(a, save(tmp_path / "b.npz", labels, better), n_draws=300)
    for item in found.summary:
        assert item.real and item.difference > 0 and item.p < 0.05
        assert item.interval[0] <= item.difference <= item.interval[1]
    same = compare(a, a, n_draws=300)
    assert not any(item.real for item in same.summary)
    assert {item.p for item in same.per_tag["pr_auc"]} == {1.0}


def test_clips_and_tags_in_another_order_are_matched_by_name(case, tmp_path):
    labels, worse, better = case
    rows, columns = np.random.default_rng(1).permutation(N_CLIPS), [2, 0, 3, 1]
    a = save(tmp_path / "a.npz", labels, worse, clip_ids=IDS, tags=TAGS)
    b = save(tmp_path / "b.npz", labels, better, clip_ids=IDS, tags=TAGS)
    other = save(
        tmp_path / "c.npz",
        labels[rows][:, columns],
        better[rows][:, columns],
        clip_ids=IDS[rows],
        tags=TAGS[columns],
    )
    expected, found = compare(a, b, n_draws=200), compare(a, other, n_draws=200)
    assert found.per_tag == expected.per_tag
    # Sums in another order.
    for one, two in zip(found.summary, expected.summary, strict=True):
        assert one.interval == pytest.approx(two.interval)


def test_tags_that_only_one_has_are_left_out_and_named(case, tmp_path):
    labels, worse, better = case
    a = save(tmp_path / "a.npz", labels, worse, tags=TAGS)
    b = save(tmp_path / "b.npz", labels[:, :3], better[:, :3], tags=TAGS[:3])
    found = compare(a, b, n_draws=200)
    assert found.tags == ("a", "b", "c") and found.left_out == ("d",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": N_CLIPS - 1}, "299 clips instead of 300"),
        ({"ids": "x"}, "lacks 300 of the clips, e.g. 'clip 0'"),
        ({"flip": True}, "has other labels of 'a'"),
        ({"tags": "x"}, "has no tag of the first"),
    ],
)
def test_other_clips_or_labels_are_refused_in_one_line(case, tmp_path, change, said):
    labels, worse, better = case
    a = save(tmp_path / "a.npz", labels, worse, clip_ids=IDS, tags=TAGS)
    rows = slice(change.get("rows"))
    names = {
        "clip_ids": np.char.add(change.get("ids", ""), IDS)[rows],
        "tags": np.char.add(change.get("tags", ""), TAGS),
    }
    other = 1 - labels if change.get("flip") else labels
    b = save(tmp_path / "b.npz", other[rows], better[rows], **names)
    with pytest.raises(ModelError) as caught:
        compare(a, b)
    assert str(caught.value).startswith(f"{b}: {said}") and "\n" not in str(caught.value)


def test_without_names_another_number_of_tags_is_refused(case, tmp_path):
    labels, worse, better = case
    a = save(tmp_path / "a.npz", labels, worse)
    b = save(tmp_path / "b.npz", labels[:, :3], better[:, :3])
    with pytest.raises(ModelError, match="3 tags instead of 4, and no names"):
        compare(a, b)


def test_clips_of_an_artist_stay_together_and_the_table_says_so(case, tmp_path, command):
    labels, worse, better = case
    artists = np.array([f"artist {number % 30}" for number in range(N_CLIPS)])
    a = save(tmp_path / "a.npz", labels, worse, artists=artists)
    b = save(tmp_path / "b.npz", labels, better)
    code, out, err = command("compare", a, b, "--draws", "200")
    assert (code, err) == (0, "")
    assert "paired bootstrap clustered by artist, 30 artists (200 draws, seed 0)" in out
    assert "PR-AUC by tag: 4 of 4 differ (of equal models about 0.2 would)" in out


def test_models_are_not_compared_on_the_clips_of_too_few_artists(case, tmp_path, command):
    labels, worse, better = case
    a = save(tmp_path / "a.npz", labels, worse, artists=np.array(["ann"] * N_CLIPS))
    b = save(tmp_path / "b.npz", labels, better)
    code, out, err = command("compare", a, b)
    assert (code, out) == (2, "")
    assert err == (
        f"error: {a}: no intervals: 1 artists are too few to draw from, 10 are needed; "
        "compare scores of more of them\n"
    )


def test_scores_without_any_tag_to_score_are_refused(case, tmp_path):
    labels, worse, better = case
    a = save(tmp_path / "a.npz", labels * 0, worse)
    b = save(tmp_path / "b.npz", labels * 0, better)
    with pytest.raises(ModelError, match="no tag has both positives and negatives among these 300"):
        compare(a, b)


def test_a_comparison_needs_a_draw(case, tmp_path, command):
    labels, worse, _ = case
    a = save(tmp_path / "a.npz", labels, worse)
    code, out, err = command("compare", a, a, "--draws", "0")
    assert (code, out) == (2, "") and "--draws" in err


def test_json_is_one_document(case, tmp_path, command):
    labels, worse, better = case
    a, b = save(tmp_path / "a.npz", labels, worse), save(tmp_path / "b.npz", labels, better)
    code, out, err = command("compare", a, b, "--draws", "200", "--format", "json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["schema_version"] == 1 and content["n_draws"] == 200
    assert content["summary"][0]["name"] == "ROC-AUC macro" and content["summary"][0]["real"]
    assert [tag["name"] for tag in content["tags"]["roc_auc"]] == [f"tag {n}" for n in range(4)]


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ("test", "make it with: tagger evaluate {run}"),
        ("validation", "make it with: tagger evaluate {run} --part validation"),
        ("won-test", "make it with: tagger evaluate {run} --protocol won"),
        ("all-train", "make it with: tagger evaluate {run} --protocol all --part train"),
        ("first", "choose PART or PROTOCOL-PART, e.g. --evaluation validation or won-test"),
    ],
)
def test_a_run_that_was_not_evaluated_says_how(tmp_path, case, evaluation, said):
    labels, worse, _ = case
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"format_version": 1}')
    with pytest.raises(ModelError) as caught:
        compare(save(tmp_path / "a.npz", labels, worse), run, evaluation=evaluation)
    expected = f"{run}: has no evaluation {evaluation!r}; {said.format(run=run)}"
    assert str(caught.value) == expected
