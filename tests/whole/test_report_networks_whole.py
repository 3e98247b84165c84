"""Promises of the reports' networks from files to tags: stored, trained, exported, used."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import yaml
from signals import RATE, noise, sine

from preprocess.signal.features import FRONT_ENDS
from tagger.config import load_config
from tagger.study.run_study import run_study
from tagger.tagging.tagger import Tagger

ROOT = Path(__file__).parents[2]
LABELS = ("hum", "hiss", "beep")
# Without TensorFlow: what tags must not need it.
TAG = """
import sys
sys.modules["tensorflow"] = sys.modules["tf_keras"] = None
from tagger.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Folders of clips of three sounds that anybody tells apart."""
    root = tmp_path_factory.mktemp("music")
    for number in range(12):
        sounds = {
            "hum": sine(110, 3.2, amplitude=0.5) + noise(3.2, seed=number, amplitude=0.01),
            "hiss": noise(3.2, seed=number, amplitude=0.3),
            "beep": sine(3000 + 40 * number, 3.2, amplitude=0.4),
        }
        for label in LABELS:
            (root / label).mkdir(exist_ok=True)
            sf.write(root / label / f"{label}{number}.wav", sounds[label], RATE)
    return root


def settings_of(kind):
    short = {"front_end.params": {"seconds": 3.0, "frames": 64, "hop": 1024, "bands": 32}}
    head = {"model.head.name": "dense_layers", "model.head.params": {"units": [8], "dropout": 0.0}}
    return {
        "crnn": {
            "front_end.name": "mel_clip",
            **short,
            "model.backbone.name": "crnn",
            "model.backbone.params": {"filters": 8, "units": 8, "dropout": 0.0},
            **head,
        },
        "mlfi": {
            "front_end.name": "mel_segments",
            "store.dtype": "float32",
            "model.backbone.name": "mlfi",
            "model.backbone.params": {"mode": "two_way", "path": "3", "dropout": 0.0},
            **head,
        },
        "picture": {
            "front_end.name": "mel_picture",
            "front_end.params": {"height": 48, "width": 48, "seconds": 3.0},
            "model.backbone.name": "cnn_picture",
            "model.backbone.params": {"filters": 4},
            **head,
        },
    }[kind]


def command_line(kind, music, folder, **more):
    settings = {
        "data.name": "folders",
        "data.root": str(music),
        "data.split": "k_fold",
        "data.split_params": {"folds": 3, "group": "none"},
        "store.root": str(folder / "store"),
        "store.workers": 1,
        "run.root": str(folder / "run"),
        "task.name": "single_label",
        "stream.patches_per_clip": 1,
        "stream.batch_size": 8,
        "stream.steps_per_epoch": 12,
        "train.monitor": "accuracy",
        "train.epochs": 4,
        "train.learning_rate": 0.01,
        **settings_of(kind),
        **more,
    }
    return [
        word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]


@pytest.mark.parametrize("kind", ["crnn", "mlfi", "picture"])
def test_a_network_goes_all_the_way_from_files_to_tags(kind, music, tmp_path, command):
    if kind == "mlfi":
        pytest.importorskip("librosa")
    options = command_line(kind, music, tmp_path)
    for verb in ("preprocess", "train"):
        code, _, err = command(verb, *options)
        assert code == 0, err
    run = tmp_path / "run"
    code, _, err = command("evaluate", run, "--format=json")
    assert code == 0, err
    figures = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert figures["accuracy"] > 0.6
    # On sound, by LiteRT alone, with its embeddings and a picture over time.
    songs = [music / label / f"{label}0.wav" for label in LABELS]
    words = [
        "predict-tags",
        *songs,
        "--model",
        run,
        "--format=json",
        "--taggram",
        tmp_path / "pictures",
    ]
    done = subprocess.run(
        [sys.executable, "-c", TAG, *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    best = [song["tags"][0]["label"] for song in json.loads(done.stdout)]
    assert sum(one == label for one, label in zip(best, LABELS, strict=True)) >= 2
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    code, _, _ = command("embed", *songs, "--model", run, "-o", tmp_path / "embeddings.npz")
    assert code == 0
    assert "penultimate" in Tagger.load(run).embeddings
    assert "parameters: " in command("info", run)[1]
    card = (run / "bundle" / "MODEL_CARD.md").read_text()
    assert settings_of(kind)["model.backbone.name"] in card


def test_a_model_of_pictures_tags_pictures_too(music, tmp_path, command):
    image = pytest.importorskip("PIL.Image")
    options = command_line("picture", music, tmp_path, **{"train.epochs": 1})
    assert command("preprocess", *options)[0] == 0 and command("train", *options)[0] == 0
    front_end = load_config(tmp_path / "run/config.yaml").make_front_end()
    drawn = front_end.windows(sf.read(music / "hum/hum0.wav", dtype="float32")[0])["picture"][0]
    image.fromarray(drawn.round().astype(np.uint8)).save(tmp_path / "hum.png")
    (tmp_path / "none.png").write_text("no picture")
    predict = partial(command, "predict-tags", "--model", tmp_path / "run", "--format=json")
    code, out, _ = predict(tmp_path / "hum.png", tmp_path / "none.png")
    seen, failed = json.loads(out)
    assert code == 1 and seen["tags"] and "none.png" in failed["error"]


def test_a_study_trains_networks_beside_classifiers_and_lets_them_vote(music, tmp_path):
    base = {
        "data.name": "folders",
        "data.root": str(music),
        "data.split": "k_fold",
        "data.split_params": {"folds": 3, "group": "none"},
        "task.name": "single_label",
    }
    network = {
        **settings_of("crnn"),
        "stream.patches_per_clip": 1,
        "stream.batch_size": 8,
        "stream.steps_per_epoch": 10,
        "train.monitor": "accuracy",
        "train.epochs": 3,
        "train.learning_rate": 0.01,
        "store.workers": 1,
    }
    other = network | {"model.backbone.name": "lstm", "model.backbone.params": {"units": 8}}
    study = {
        "title": "Two networks",
        "set": base,
        "train": True,
        "variants": [
            {"name": "crnn", "set": network, "published": [{"value": 0.9, "source": "nobody"}]},
            {"name": "lstm", "set": other},
            {
                "name": "too short",
                "set": network | {"front_end.params": {"seconds": 3, "frames": 4}},
            },
            {"name": "weights", "vote_of": ["crnn", "lstm"], "vote_by": "weights"},
            {"name": "stacking", "vote_of": ["crnn", "lstm"], "vote_by": "stacking"},
        ],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    result = run_study(path, tmp_path / "out", n_jobs=1)
    assert set(result.failures) == {"too short"} and "frames" in result.failures["too short"]
    assert set(result.results) == {"crnn", "lstm", "weights", "stacking"}
    for name, found in result.results.items():
        assert found["n_folds"] == 3 and sum(found["n_tested"]) == 36, name
    assert "parameters, best epoch" in result.results["crnn"]["found"]
    # Variants of one front end share a store, and what is there is not trained again.
    assert len([one for one in (tmp_path / "out/stores").iterdir() if one.is_dir()]) <= 2
    before = (tmp_path / "out/variants/crnn/result.json").stat().st_mtime_ns
    run_study(path, tmp_path / "out", n_jobs=1)
    assert (tmp_path / "out/variants/crnn/result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "name", ["fma_networks", "gtzan_networks", "gtzan_mlfi", "gtzan_pictures", "gtzan_all"]
)
def test_every_network_of_the_ready_made_studies_can_be_built(name):
    from tagger.network.model import build_model
    from tagger.study.study_file import config_of, read_study

    path = ROOT / "configs/studies" / f"{name}.yaml"
    study = read_study(path)
    built = set()
    for variant in study.variants:
        config = config_of(study, variant, path=path, overrides=["data.root=elsewhere"])
        if not study.trains(variant) or variant.vote_of:
            continue
        what = json.dumps([config.to_dict()["model"], config.to_dict()["front_end"]])
        if what not in built:
            built.add(what)
            build_model(config, config.make_front_end(), ["a", "b"])
    assert built


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("configs/*_*/*.yaml")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_of_a_report_is_whole(path):
    config = load_config(path)
    assert FRONT_ENDS.get(config.front_end.name)
    assert str(config.run.root).startswith("runs/")
    assert (path.parent / "README.md").read_text().count(path.name) >= 1
