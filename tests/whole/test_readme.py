"""Every command and code block of the README, of docs/ and of CONTRIBUTING is run here."""

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from free_ports import ports

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FIRST_SCREEN_LINES = 30
# What users read, in this order.
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "quickstart",
            "your_music",
            "tagging",
            "service",
            "training",
            "genres",
            "evaluation",
            "studies",
            "models",
            "formats",
            "cloud",
            "scale",
            "faq",
        )
    ),
)


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of every block of a page."""
    return BLOCK.findall((REPOSITORY / name).read_text(encoding="utf-8"))


def block(text: str, *pages: str) -> str:
    """The block that holds a text, of all pages or of some."""
    found = [c for page in pages or PAGES for _, c in blocks(page) if text in c]
    assert len(found) == 1, f"{len(found)} blocks with {text!r}"
    return found[0]


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **environment,
        },
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def sound(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tones = sum(
        np.sin(2 * np.pi * f * np.arange(round(seconds * 16000)) / 16000) for f in (220, 330)
    )
    return 0.1 * tones + 0.01 * rng.standard_normal(round(seconds * 16000))


# Shorter clips (of fewer artists there are no intervals), and a training that need not be good.
SMALL_DEMO = (
    "DEMO_CORPUS='--seconds 2' DEMO_SETTINGS='--set train.epochs=1 "
    "--set stream.steps_per_epoch=8 --set model.backbone.params.width=0.05'"
)


def make_demo(folder: Path, variables: str = "") -> str:
    if not (REPOSITORY / ".venv" / ".ready").exists():
        pytest.skip("make demo would set up .venv first: run these tests with make test")
    return run(f"make demo DEMO={folder / 'demo'} {variables}", REPOSITORY).stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`make demo` into a folder of its own, but small; the folder, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    return folder, make_demo(folder, SMALL_DEMO)


@pytest.fixture(scope="module")
def home(demo: tuple[Path, str]) -> Path:
    """Folder in which the README's commands find what they speak of."""
    folder, _ = demo
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    soundfile.write(folder / "song.mp3", sound(5, 0), 16000)
    music = folder / "my_music"
    (music / "deeper").mkdir(parents=True)
    sheet = block("path,tags", "docs/training.md")
    # The two clips of the README, and enough others to split.
    rows = sheet.splitlines() + [f"{n}.wav,{'guitar' if n % 2 else 'drums'}" for n in range(30)]
    (music / "clips.csv").write_text("\n".join(rows) + "\n")
    for number, row in enumerate(rows[1:]):
        soundfile.write(music / row.split(",")[0], sound(2, number), 16000)
    (folder / "my_music.yaml").write_text(block("name: tag_csv"))
    rng = np.random.default_rng(0)
    np.savez(folder / "scores.npz", est=rng.random((50, 4)), gt=rng.random((50, 4)) < 0.5)
    # A MagnaTagATune of a few clips, where the README says that it lies.
    shutil.copytree(folder / "demo" / "corpus", folder / "data" / "magnatagatune")
    table = (folder / "data/magnatagatune/annotations_final.csv").read_bytes().splitlines(True)
    (folder / "data/magnatagatune/annotations_final.csv").write_bytes(b"".join(table[::4]))
    return folder


def test_make_demo_ends_with_tags_the_table_and_the_pictures(demo):
    _, printed = demo
    assert re.search(r"0\.\d{3} [#|]+ +\w+", printed)
    assert re.search(r"^PR-AUC +0\.\d{4} 0\.\d{3}-[01]\.\d{3}", printed, re.MULTILINE)
    # The pictures of the evaluation are within its report.
    named = [Path(path) for path in re.findall(r"\S+\.(?:png|html)$", printed, re.MULTILINE)]
    assert [path.name for path in named] == ["report.html", "taggram.png"]
    assert all(path.exists() for path in named)


@pytest.mark.campaign
def test_the_demo_model_is_good(tmp_path):
    make_demo(tmp_path)
    metrics = json.loads((tmp_path / "demo/run/evaluation/test/metrics.json").read_text())
    assert metrics["roc_auc_macro"] >= 0.95
    assert metrics["n_tags_scored"] == 10
    assert metrics["n_clips"] >= 30


@pytest.mark.campaign
def test_make_demo_again_repeats_nothing(demo):
    folder, _ = demo
    before = (folder / "demo/run/last.weights.h5").stat().st_mtime_ns
    make_demo(folder, SMALL_DEMO)
    assert (folder / "demo/run/last.weights.h5").stat().st_mtime_ns == before


def test_make_test_runs_the_tests():
    # To run it here would be to run this test within itself.
    planned = run("make --dry-run test", REPOSITORY).stdout
    assert "-m pytest" in planned


def test_a_song_is_tagged_by_the_commands_of_the_first_screen(home, musicnn_cache):
    commands = block("song.mp3 --model demo/run")
    lines = run(commands, home, TAGGER_CACHE=str(musicnn_cache)).stdout.splitlines()
    assert len(lines) == 22
    assert [line.split(" ")[0] for line in lines[::11]] == ["song.mp3", "song.mp3"]


def test_a_song_is_tagged_by_the_python_of_the_first_screen(home, musicnn_cache):
    code = block("tagger.top_tags(")
    assert len(code.splitlines()) <= 10
    printed = run(f"python - <<'END'\n{code}END", home, TAGGER_CACHE=str(musicnn_cache)).stdout
    assert len(ast.literal_eval(printed.splitlines()[0])) == 10
    assert "(5, 10)" in printed


def test_anything_is_tagged_by_the_commands_of_the_readme(home, musicnn_cache):
    (home / "music" / "deep").mkdir(parents=True)
    (home / "more" / "deep").mkdir(parents=True)
    for number, name in enumerate(("music/one.mp3", "music/deep/two.mp3", "more/deep/x.flac")):
        soundfile.write(home / name, sound(4, number), 16000)
    soundfile.write(home / "song.wav", sound(4, 9), 44100)
    commands = block("--files-from -")
    environment = {"TAGGER_CACHE": str(musicnn_cache), "TAGGER_MODEL": "musicnn-mtt"}
    printed = run(commands, home, **environment).stdout.splitlines()
    assert len((home / "tags.csv").read_text().splitlines()) == 1 + 4 * 10
    assert printed[0].startswith("- (")
    assert sum(line.startswith('{"path": "music/') for line in printed) == 2
    assert len(list((home / "labels").rglob("*.txt"))) == 2
    assert len(list((home / "annotations").rglob("*.jams"))) == 2
    with np.load(home / "embeddings.npz") as archive:
        assert archive["embeddings"].shape == (2, 200)


def test_many_files_are_tagged_by_the_python_of_the_readme(home, musicnn_cache):
    soundfile.write(home / "other.wav", sound(4, 3), 22050)
    code = block("predict_many([")
    printed = run(f"python - <<'END'\n{code}END", home, TAGGER_CACHE=str(musicnn_cache)).stdout
    assert [line.split()[0] for line in printed.splitlines()[:2]] == ["song.mp3", "other.wav"]
    assert printed.splitlines()[2].endswith("(1, 753)")


def test_models_are_pulled_by_the_commands_of_the_readme(home, musicnn_cache):
    commands = block("tagger models pull")
    printed = run(commands, home, TAGGER_CACHE=str(musicnn_cache)).stdout
    table = (REPOSITORY / "docs/models.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `([\w-]+)` \| [\d-]+ \| [\d.-]+ \|", table, re.MULTILINE)
    assert names == ["musicnn-mtt", "vgg-mtt", "musicnn-msd", "vgg-msd", "vggish"]
    listed = [line.split()[0] for line in printed.splitlines()[1:6]]
    assert sorted(listed) == sorted(names)
    assert "penultimate (200)" in printed


@pytest.mark.campaign
def test_the_demo_model_is_exported_by_the_commands_of_the_readme(home):
    printed = run(block("--format savedmodel"), home).stdout
    assert printed.count("largest difference from Keras") == 3


def test_the_first_screen_shows_what_it_is_and_both_commands():
    page = (REPOSITORY / "README.md").read_text().splitlines()[:FIRST_SCREEN_LINES]
    assert {"make demo", "make test"} <= {line.split("  ")[0].strip() for line in page}
    assert "tagger song.mp3" in page


def test_own_labels_become_a_model_by_the_commands_of_the_readme(home, musicnn_cache):
    commands = block("tagger train my_music", "README.md")
    printed = run(commands, home, TAGGER_CACHE=str(musicnn_cache)).stdout
    assert "PR-AUC 0." in printed and "next: tagger tag SONG --model runs/mine" in printed
    assert any(line.startswith("song.mp3 (") for line in printed.splitlines())


def test_own_labels_become_a_model_by_the_commands_of_the_tutorial(home, musicnn_cache):
    page = "docs/your_music.md"
    commands = block("tagger train my_music", page) + block("one.wav --model runs/mine", page)
    run(commands, home, TAGGER_CACHE=str(musicnn_cache))
    code = block("Tagger.load(", page)
    printed = run(f"python - <<'END'\n{code}END", home, TAGGER_CACHE=str(musicnn_cache)).stdout
    assert len(ast.literal_eval(printed)) == 3
    # Both pages begin with the same words.
    assert block("tagger train my_music", "docs/quickstart.md") in block("tagger train my", page)


def scenes_of(shared, folder):
    """Paths of the scenes, and the tags of each."""
    table = (shared / "scenes/annotations_final.csv").read_text().splitlines()
    names, *rows = (line.replace('"', "").split("\t") for line in table)
    return [
        (row[-1], [t for t, flag in zip(names[1:], row[1:-1], strict=False) if flag == "1"])
        for row in rows
    ]


@pytest.mark.campaign
def test_the_tutorial_prints_what_comes_of_scenes_in_folders(shared, musicnn_cache, tmp_path):
    counts = dict.fromkeys(("banjo", "flute", "voice", "violin"), 0)
    for path, tags in scenes_of(shared, tmp_path):
        named = [tag for tag in counts if tag in tags]
        if len(named) == 1 and counts[named[0]] < 40:
            counts[named[0]] += 1
            folder = tmp_path / "genres" / named[0]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(path).name).symlink_to(shared / "scenes" / path)
    command = "tagger train genres --output runs/labels"
    printed = run(command, tmp_path, TAGGER_CACHE=str(musicnn_cache)).stdout
    shown = block("runs/labels: 160 clips, 4 labels")
    found, wanted = (
        float(re.search(r"^accuracy +(0\.\d+) ", text, re.MULTILINE)[1])
        for text in (printed, shown)
    )
    assert abs(found - wanted) < 0.02
    names = block("my_genres/").split()
    assert {"jazz/one.mp3", "rock/four.ogg"} <= set(names)


@pytest.mark.campaign
def test_the_readme_prints_what_comes_of_320_scenes(shared, musicnn_cache, tmp_path):
    clips = scenes_of(shared, tmp_path)
    random.Random(0).shuffle(clips)
    music = tmp_path / "my_music"
    for path, _ in clips[:320]:
        (music / path).parent.mkdir(parents=True, exist_ok=True)
        (music / path).symlink_to(shared / "scenes" / path)
    rows = [f"{path},{';'.join(tags)}" for path, tags in clips[:320]]
    (music / "clips.csv").write_text("\n".join(["path,tags", *rows]) + "\n")
    command = "tagger train my_music --output runs/mine"
    printed = run(command, tmp_path, TAGGER_CACHE=str(musicnn_cache)).stdout
    assert "\n".join(printed.splitlines()[-2:]) + "\n" == block("PR-AUC 0.82, guessing")


@pytest.mark.campaign
def test_own_labels_are_trained_on_by_the_commands_of_the_readme(home):
    commands = block("--config my_music.yaml --check")
    small = "--set train.epochs=1 --set model.backbone.params.width=0.1"
    commands, n_replaced = re.subn(r"(tagger train .*)", rf"\1 {small}", commands)
    assert n_replaced == 1
    printed = run(commands, home).stdout
    assert "path,start,end,tag,score,error" in printed
    assert list((home / "pictures").glob("*.png"))
    assert "guitar" in printed


def test_a_study_of_the_page_runs_on_a_table_of_ones_own(home):
    rng = np.random.default_rng(0)
    rows = ["filename,tempo,flux,label"]
    for number in range(60):
        label = ("rock", "jazz")[number % 2]
        a, b = rng.normal(number % 2, 1, 2)
        rows.append(f"{label}{number}.wav,{a},{b},{label}")
    (home / "my_table").mkdir()
    (home / "my_table/values.csv").write_text("\n".join(rows) + "\n")
    (home / "mine.yaml").write_text(block("title: Two learners on my table"))
    command = block("tagger study run").replace("configs/studies/gtzan_classical.yaml", "mine.yaml")
    printed = run(command.replace("data.root=gtzan", "data.root=my_table"), home).stdout
    assert [line.split(",")[0] for line in printed.splitlines()[1:4]]
    assert (home / "studies/classical/report.html").exists()


@pytest.mark.campaign
def test_settings_are_searched_by_the_command_of_the_readme(home):
    (home / "space.yaml").write_text(block("{low: 0.0003"))
    small = "--set train.epochs=1 --set model.backbone.params.width=0.1"
    command = block("tagger search").strip().replace("--trials 20", "--trials 2")
    if not (home / "stores/my_music").exists():
        run("tagger preprocess --config my_music.yaml", home)
    printed = run(f"{command} {small}", home).stdout
    assert len(printed.splitlines()) == 3
    assert (home / "runs/search/best.yaml").exists()
    assert (home / "runs/search/trials/0001/bundle/bundle.json").exists()


@pytest.mark.campaign
def test_stores_and_runs_are_kept_in_a_bucket_by_the_commands_of_the_readme(
    home, monkeypatch, tmp_path
):
    pytest.importorskip("gcp_storage_emulator")
    from cloud_server import running

    commands = block("song.mp3 --model gs://my-bucket/run")
    small = "--set train.epochs=1 --set model.backbone.params.width=0.1"
    commands = re.sub(r"(tagger train .*)", rf"\1 {small}", commands)
    with running(monkeypatch, bucket="my-bucket") as cloud:
        printed = run(commands, home, TAGGER_CACHE=str(tmp_path)).stdout
        assert {"store/manifest.json", "run/run.json", "run/evaluation/test/metrics.json"} <= set(
            cloud.objects()
        )
    assert "gs://my-bucket/store: 32 clips" in printed
    assert "gs://my-bucket/run: 1 epochs" in printed
    assert any(line.startswith("song.mp3") for line in printed.splitlines())


@pytest.mark.campaign
def test_clips_are_preprocessed_by_the_pipelines_of_the_readme(home, monkeypatch, tmp_path):
    """Here in place of Dataflow's machines, which the last options would rent."""
    pytest.importorskip("apache_beam")
    pytest.importorskip("gcp_storage_emulator")
    from cloud_server import running

    from tagger.base.files import write_bytes
    from tagger.cloud.locations import location

    commands = block("--engine beam")
    commands, n_replaced = re.subn("-- --runner DataflowRunner .*", "", commands)
    assert n_replaced == 1
    with running(monkeypatch, bucket="my-bucket") as cloud:
        for path in (home / "my_music").glob("**/*.*"):
            name = path.relative_to(home / "my_music").as_posix()
            write_bytes(location(f"gs://my-bucket/music/{name}"), path.read_bytes())
        printed = run(commands, home, TAGGER_CACHE=str(tmp_path)).stdout
        assert "manifest.json" in cloud.objects("patches/")
    assert "stores/my_music: 32 clips" in printed
    assert "gs://my-bucket/patches: 32 clips (32 written" in printed


@pytest.mark.campaign
def test_two_machines_train_together_by_the_commands_of_the_readme(home):
    commands = block("TF_CONFIG")
    for address, port in zip(("10.0.0.2:2222", "10.0.0.3:2222"), ports(2), strict=True):
        commands = commands.replace(address, f"127.0.0.1:{port}")
    commands = commands.replace("joint", "joint --set train.epochs=1 --set stream.batch_size=8")
    other = commands.replace('"index": 0', '"index": 1')
    if not (home / "stores/my_music").exists():
        run("tagger preprocess --config my_music.yaml", home)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda text: run(text, home), (commands, other))
    assert "2 devices of 2 machines, this is 0" in first.stderr
    assert "2 devices of 2 machines, this is 1" in second.stderr
    assert (home / "runs/joint/bundle/bundle.json").exists()


@pytest.mark.campaign
def test_magnatagatunes_commands_do_what_the_readme_says(home):
    """With one epoch and a narrow network: the full size takes a GPU."""
    small = (
        "--set train.epochs=1 --set train.warmup_epochs=0.5 --set stream.steps_per_epoch=4 "
        "--set model.backbone.params.width=0.1"
    )
    commands = block("python -m tagger.train")
    commands = re.sub(r"(python -m tagger\.train .*)", rf"\1 {small}", commands)
    metrics = json.loads(run(commands, home).stdout.split("kept), 0 failed\n")[1].split("\n", 1)[1])
    assert metrics["n_clips"] > 0
    again = block("--resume")
    assert "1 epochs" in run(again.strip() + f" {small}", home).stdout


@pytest.mark.campaign
def test_published_weights_are_tested_by_the_command_of_the_readme(home, tmp_path):
    """Against the address and size of the real thing the loader is tested elsewhere; here a file
    of that shape lies in the cache, whose figures are not the published ones.
    """
    import h5py

    from tagger.config import load_config
    from tagger.network.backbones.vggish import FULLY_CONNECTED
    from tagger.network.model import build_model

    command = block("model.backbone.weights=vggish")
    embedding = "model.backbone.params.embedding=true"
    config = load_config(None, [embedding])
    model = build_model(config, config.make_front_end(), ["tag"]).embedding_model
    assert [name for name, _ in FULLY_CONNECTED] == ["fc1_1", "fc1_2", "fc2"]
    with h5py.File(tmp_path / "vggish.h5", "w") as h5:
        for weight in model.weights:
            h5.create_dataset(weight.name.removesuffix(":0"), data=weight.numpy())
    printed = run(command.replace("=vggish ", f"={tmp_path / 'vggish.h5'} "), home).stdout
    assert re.search(
        r"published smoke test: FAIL: embedding mean \S+ \(expected 0.000657\)", printed
    )


def test_the_configs_of_genre_data_sets_are_read(tmp_path):
    from tagger.config import load_config

    texts = {
        "gtzan": block("name: gtzan"),
        "fma": block("name: fma"),
        "spectrogram_file": block("name: spectrogram_file"),
        "picture_folders": block("name: picture_folders"),
    }
    for name, text in texts.items():
        (tmp_path / "genres.yaml").write_text(text)
        config = load_config(tmp_path / "genres.yaml")
        assert (config.data.name, config.task.name) == (name, "single_label")


def test_the_phases_of_the_page_are_those_of_a_config(tmp_path):
    from tagger.config import load_config

    (tmp_path / "phases.yaml").write_text(block("name: keras_application"))
    config = load_config(tmp_path / "phases.yaml")
    assert config.train.most_epochs == 90 and config.train.phase_rate(1) == 0.0001
    assert config.model.backbone.freeze == "all" and config.train.phases[0].freeze == "none"


@pytest.fixture
def service(tmp_path):
    """Address of the service that the page starts, with a small model."""
    from small_bundle import make_bundle

    make_bundle(tmp_path / "bundle")
    (port,) = ports(1)
    command = block("tagger serve --model musicnn-mtt").strip()
    words = command.replace("musicnn-mtt", str(tmp_path / "bundle")).split()[1:]
    process = subprocess.Popen(
        [sys.executable, "-m", "tagger", *words, "--port", str(port)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert f"127.0.0.1:{port}" in process.stderr.readline()
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.communicate(timeout=60)


def test_the_service_answers_what_its_page_asks(home, service):
    def here(text):
        return text.replace("127.0.0.1:8000", service)

    tags, segments = here(block("curl --data-binary @song.mp3")).splitlines()
    best = json.loads(run(tags, home).stdout)["tags"]
    assert len(best) == 3
    assert json.loads(run(segments, home).stdout)["taggram"]
    wanted = [f"{tag['label']} {tag['score']}" for tag in best]
    python = here(block("import requests"))
    assert run(f"python - <<'END'\n{python}END", home).stdout.splitlines() == wanted
    if shutil.which("node"):
        script = "import { readFileSync } from 'fs'; const file = readFileSync('song.mp3');\n"
        (home / "ask.mjs").write_text(script + here(block("await fetch(")))
        assert run("node ask.mjs", home).stdout.splitlines() == wanted


def test_a_stream_is_listened_to_by_the_command_of_the_page(home, tmp_path):
    from small_bundle import make_bundle

    make_bundle(tmp_path / "bundle")
    command = block("tagger listen -")
    if not shutil.which("ffmpeg"):
        (home / "song.wav").write_bytes(b"")
        soundfile.write(home / "song.wav", sound(5, 0), 16000)
        command = f"cat song.wav |{command.partition('|')[2]}"
    printed = run(command.strip() + f" --model {tmp_path / 'bundle'}", home).stdout
    assert len(printed.splitlines()) == 5


def test_the_container_is_composed_of_files_that_are_there():
    # Docker is not here: tests/deploy looks at what it is given.
    for path in re.findall(r"deploy/service/[\w.]+", block("docker compose --file")):
        assert (REPOSITORY / path).exists() or path.endswith("token")


def test_a_table_of_features_is_read_and_split_by_the_python_of_its_page(tmp_path, shared):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gtzan").symlink_to(shared / "gtzan")
    code = block("feature_values(")
    printed = run(f"python - <<'END'\n{code}END", tmp_path, PYTHONPATH=str(REPOSITORY)).stdout
    assert printed.splitlines() == ["(2991, 57) mfcc1_mean", "1326 segments train, 869 test"]


def test_any_models_scores_are_evaluated_by_the_command_of_the_readme(home):
    metrics = json.loads(run(block("scores.npz --format json"), home).stdout)
    assert metrics["n_tags_scored"] == 4


def test_the_patches_of_the_readme_have_the_shape_it_says(home):
    code = block("log_mel_patches(waveform")
    printed = run(f"python - <<'END'\n{code}print(patches.dtype, patches.shape)\nEND", home).stdout
    assert printed == "float32 (5, 96, 64)\n"


def test_the_arithmetic_of_a_million_hours_is_what_the_script_prints():
    printed = run(f"python {REPOSITORY / 'benchmarks/scale.py'}", REPOSITORY).stdout.strip()
    page = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    assert "| clips of 29 s | 124.1 million |" in printed
    assert printed in page


def test_the_config_of_a_classifier_on_the_page_is_one(tmp_path):
    from tagger.config import load_config

    (tmp_path / "svm.yaml").write_text(block("classifier_params: {c: [1, 10]"))
    params = load_config(tmp_path / "svm.yaml").model.clip_head.params
    assert params["classifier_params"] == {"pca": 64, "c": (1.0, 10.0)}


def test_no_block_of_the_pages_is_left_out():
    """Each block is named by a test above: a new one needs a new test."""
    tests = Path(__file__).read_text(encoding="utf-8")
    named = re.findall(r'[^_]block\(\s*"(.+?)"', tests)
    for page in PAGES:
        for language, content in blocks(page):
            is_make = content.startswith("make demo")
            assert is_make or any(t in content for t in named), f"{page}, {language}: {content}"


def test_the_tags_that_the_readme_prints_are_those_of_the_clip(shared, musicnn_cache):
    (clip,) = (shared / "magnatagatune" / "reference").glob("*.mp3")
    command = f"tagger {clip}"
    printed = run(command, REPOSITORY, TAGGER_CACHE=str(musicnn_cache)).stdout
    assert printed.replace(str(clip), "song.mp3") == block("song.mp3 (29.1 s)")


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    for page in (*PAGES, "docs/command_line.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", BLOCK.sub("", text)):
            assert ((REPOSITORY / page).parent / link).exists(), f"{page}: {link}"


def test_the_page_of_the_command_line_is_what_the_program_says(request):
    import click
    import typer

    from tagger.cli.main import app

    lines = ["# Command line", "", "Made from the program's own help."]

    def add(command, name: str) -> None:
        context = click.Context(command, info_name=name, terminal_width=96, max_content_width=96)
        if hasattr(command, "list_commands"):
            for part in command.list_commands(context):
                add(command.get_command(context, part), f"{name} {part}")
            return
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        lines.extend(["", f"## {name}", "", "```text", text, "```"])

    add(typer.main.get_command(app), "tagger")
    page = REPOSITORY / "docs/command_line.md"
    if request.config.getoption("--update-golden"):
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert page.read_text(encoding="utf-8") == "\n".join(lines) + "\n"


def test_the_head_and_config_of_contributing_work(tmp_path, monkeypatch):
    import importlib

    import tagger.network.heads
    from tagger.config import load_config
    from tagger.network.model import build_model

    code = block("class Hidden(Head)", "CONTRIBUTING.md")
    (tmp_path / "hidden.py").write_text(code)
    monkeypatch.setattr(
        tagger.network.heads, "__path__", [*tagger.network.heads.__path__, str(tmp_path)]
    )
    importlib.invalidate_caches()
    config_text = block("name: hidden", "CONTRIBUTING.md")
    parent = REPOSITORY / "configs" / "magnatagatune.yaml"
    config_text = config_text.replace("magnatagatune.yaml", str(parent))
    (tmp_path / "hidden.yaml").write_text(config_text)
    config = load_config(tmp_path / "hidden.yaml", ["model.backbone.params.width=0.1"])
    model = build_model(config, config.make_front_end(), ["tag"])
    assert model.window_model.get_layer("hidden").units == 200


def test_the_ways_of_contributing_lead_to_files_that_exist():
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:preprocess|tagger|tests|benchmarks)/[\w/.]*)`", page)
    assert len(paths) > 15
    missing = [p for p in paths if not (REPOSITORY / p).exists() and "hidden.py" not in p]
    assert not missing


def test_pinned_versions_carry_no_addresses():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", pin) for pin in pins)
