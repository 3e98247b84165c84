"""Pictures of a study's data: one column by label, and all of them in two dimensions."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.datasets.feature_table import FeatureValues, feature_values
from tagger.base.blocks import Block, Heading, Picture
from tagger.base.errors import ConfigError
from tagger.config import Config
from tagger.study.study_file import Plot, Study
from tagger.tagging.taggram import ORANGE, QUIET

_HEIGHT = 5.2
# The columns with the highest means.
_TAGGRAM_ROWS = 15
_TITLES = {"pca": "Principal components", "tsne": "t-SNE"}


def data_pictures(study: Study, config: Config) -> Iterator[Block]:
    """Pictures that the study's file asks for.

    Parameters
    ----------
    study : Study
        Its file.
    config : Config
        Of a variant, which says where the table is.

    Raises
    ------
    ConfigError
        If the data are no feature table, or have no such column.
    """
    if not study.plots:
        return
    if config.data.name != "feature_table":
        raise ConfigError("plots of a study need the data set feature_table")
    read = feature_values(config.data.root, config.data.params)
    label = read.index.labels.argmax(axis=1)
    for number, plot in enumerate(study.plots):
        if plot.kind == "box":
            if plot.column not in read.columns:
                raise ConfigError(
                    f"plots: the table has no column {plot.column!r}; it has "
                    f"{', '.join(read.columns[:5])}, ..."
                )
            values = read.values[:, read.columns.index(plot.column)]
            yield Heading(f"{plot.column} by label")
            draw: Any = partial(_boxes, values, label, read.index.tags, plot.column)
        elif plot.kind == "taggram":
            yield from _taggrams(read, plot, number)
            continue
        else:
            yield Heading(_TITLES[plot.kind])
            draw = partial(_points, read.values, label, read.index.tags, plot)
        yield Picture(f"data_{number}", draw, f"{plot.kind} of the values, by label")


def _taggrams(read: FeatureValues, plot: Plot, number: int) -> Iterator[Block]:
    names = plot.names or read.columns
    if len(names) != len(read.columns):
        raise ConfigError(f"plots: {len(names)} names for {len(read.columns)} columns; fix names")
    for place, clip in enumerate(plot.clips):
        rows = [row for row, record in enumerate(read.index.clips) if record.track == clip]
        if not rows:
            raise ConfigError(f"plots: the table has no clip {clip!r}; check clips")
        yield Heading(f"Taggram of {clip}")
        yield Picture(
            f"data_{number}_{place}",
            partial(_taggram, read.values[rows], names),
            f"Values of {clip}, window by window",
        )


def _taggram(values: npt.NDArray[np.float32], names: Sequence[str]) -> Any:
    from tagger.evaluate.report import figures

    shown = np.argsort(-values.mean(axis=0), kind="stable")[:_TAGGRAM_ROWS]
    figure = figures.new_picture(1.2 + 0.24 * len(shown))
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(values[:, shown].T, cmap="magma")
    axes.set_yticks(np.arange(len(shown)) + 0.5, [names[column] for column in shown])
    axes.invert_yaxis()
    axes.set_xlabel("window")
    figures.style(axes, grid=None)
    figure.colorbar(mesh, ax=axes, pad=0.01)
    return figure


def _boxes(
    values: npt.NDArray[np.float32],
    label: npt.NDArray[np.intp],
    names: tuple[str, ...],
    title: str,
) -> Any:
    from tagger.evaluate.report import figures

    figure = figures.new_picture(_HEIGHT)
    axes = figure.add_subplot()
    axes.boxplot(
        [values[label == number] for number in range(len(names))],
        tick_labels=names,
        medianprops={"color": ORANGE},
        flierprops={"markersize": 3, "markeredgecolor": QUIET},
    )
    axes.set_ylabel(title)
    figures.style(axes, grid="y")
    return figure


def _points(
    values: npt.NDArray[np.float32],
    label: npt.NDArray[np.intp],
    names: tuple[str, ...],
    plot: Plot,
) -> Any:
    from matplotlib import colormaps
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    from tagger.evaluate.report import figures

    rows = StandardScaler().fit_transform(values.astype(np.float64))
    # t-SNE begins with the components as well: the same picture each time.
    made = PCA(2, random_state=0) if plot.kind == "pca" else TSNE(2, init="pca", random_state=0)
    places = made.fit_transform(rows)
    figure = figures.new_picture(_HEIGHT + 1)
    axes = figure.add_subplot()
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    for number, name in enumerate(names):
        own = places[label == number]
        axes.scatter(*own.T, s=9, color=colours(number % colours.N), label=name, linewidths=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    figures.style(axes, grid=None)
    return figure
