"""What each option of training is worth: one row per option, several seeds, a paired bootstrap.

    python benchmarks/ablation.py benchmarks/ablation_scenes.yaml --root runs/ablation [--write]

The file names a config, settings that all runs share, and the settings of each option. Every option
is trained with every seed and evaluated on the validation clips; what is there already is not made
again. A difference is that of the averages over the seeds, both drawn with the same clips; it is
marked where its 95 % interval leaves out zero. Beside it stands how far the seeds lie apart, which
the interval, being over clips, does not know. `--part test` is for the end, when all is chosen.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from prediction import show_table

from tagger.metrics.bootstrap import difference_of, plan_draws, resample
from tagger.metrics.figures import metrics_of_columns
from tagger.metrics.score_files import read_scores

BASE = "base"
METRIC = "pr_auc_macro"
PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def run_folder(root: Path, option: str, seed: int) -> Path:
    """Where the run of an option lies."""
    name = "".join(letter if letter.isalnum() else "_" for letter in option)
    return root / f"{name}-{seed}"


def make_run(plan: dict[str, Any], root: Path, option: str, seed: int, part: str) -> None:
    """Train and evaluate, on one core; nothing if that is done."""
    folder = run_folder(root, option, seed)
    own = plan["options"].get(option, [])
    settings = [*plan["shared"], *own]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    commands = []
    base = run_folder(root, BASE, seed)
    if own and not folder.exists() and all(key.startswith("model.clip_head.") for key in own):
        # The network is that of the base, whose run comes before.
        shutil.copytree(base, folder)
        shutil.rmtree(folder / "bundle")
        shutil.rmtree(folder / "evaluation")
    if not (folder / "bundle").is_dir():
        overrides = [f"train.seed={seed}", f"run.root={folder}", *settings]
        flags = [word for setting in overrides for word in ("--set", setting)]
        commands.append(["train", "--resume", "--config", plan["config"], *flags])
    if not _is_measured(folder, part):
        commands.append(["evaluate", str(folder), "--part", part, "--draws", "0"])
    started = time.perf_counter()
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "tagger", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{option}, seed {seed}: tagger {' '.join(command)}\n{done.stderr[-2000:]}")
    if commands:
        print(f"{option}, seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


class Scores:
    """Areas of the runs of one option, of all clips and of each draw."""

    def __init__(self, folders: Sequence[Path], part: str) -> None:
        points, draws = [], []
        for folder in folders:
            scores = read_scores(folder / "evaluation" / part / "scores.npz")
            metrics = metrics_of_columns(scores.columns)
            points.append(metrics.summary[METRIC])
            plan = plan_draws(*scores.columns.shape, artists=scores.artists)
            drawn = resample([scores.columns], plan, tags=metrics.scored)[0]
            draws.append(drawn.summary[METRIC])
        self.points = np.array(points, dtype=np.float64)
        self.draws = np.mean(draws, axis=0)


def _is_measured(folder: Path, part: str) -> bool:
    return (folder / "evaluation" / part / "scores.npz").is_file()


def table(plan: dict[str, Any], root: Path, part: str) -> str:
    """Markdown, the best option first and the base on top; of options that have all their runs."""
    seeds = plan["seeds"]

    def scores(option: str) -> Scores:
        return Scores([run_folder(root, option, seed) for seed in seeds], part)

    base = scores(BASE)
    rows = []
    for option in plan["options"]:
        if not all(_is_measured(run_folder(root, option, seed), part) for seed in seeds):
            continue
        own = scores(option)
        change = difference_of(
            option, (base.points.mean(), own.points.mean()), (base.draws, own.draws)
        )
        low, high = change.interval
        real = ("better" if low > 0 else "worse") if change.real else ""
        rows.append(
            (
                change.second,
                f"| {option} | {change.second:.4f} | {own.points.std(ddof=1):.4f} | "
                f"{change.difference:+.4f} [{low:+.4f}, {high:+.4f}] | {real} |",
            )
        )
    return "\n".join(
        [
            f"| option | PR-AUC | deviation over {len(seeds)} seeds | option - base | real |",
            "|---|---|---|---|---|",
            f"| base | {base.points.mean():.4f} | {base.points.std(ddof=1):.4f} | | |",
            *(row for _, row in sorted(rows, reverse=True)),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="YAML: config, shared, seeds, options")
    parser.add_argument("--root", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--part", default="validation", help="validation or test")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each")
    parser.add_argument("--write", action="store_true", help="into docs/training.md")
    parser.add_argument("--as-is", action="store_true", help="the table of what is there already")
    arguments = parser.parse_args()
    plan = yaml.safe_load(arguments.plan.read_text(encoding="utf-8"))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for options in [] if arguments.as_is else [[BASE], list(plan["options"])]:
            runs = [
                pool.submit(make_run, plan, arguments.root, option, seed, arguments.part)
                for option in options
                for seed in plan["seeds"]
            ]
            for run in runs:
                run.result()
    text = table(plan, arguments.root, arguments.part)
    start, end = (f"<!-- ablation {arguments.part}: {side} -->\n" for side in ("start", "end"))
    show_table(text, start, end, write=arguments.write, page=PAGE)


if __name__ == "__main__":
    main()
