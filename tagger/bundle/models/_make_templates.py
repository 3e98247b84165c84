"""Make the templates of the published networks: ``python -m tagger.bundle.models._make_templates``.

Needs the extra ``train`` and the wheel of the published models. A network is exported twice with
weights drawn at random. What differs between the two files depends on weights; what it is made of
is found by trying.
"""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd
from tagger.base.log import notice
from tagger.bundle.exporters import EXPORTERS
from tagger.bundle.models._template import FOLDER, Part, Template, Weights
from tagger.bundle.models.musicnn import ENTRIES, MusicnnModel, cached_wheel, published_tensors
from tagger.bundle.parity import windows_of_demo
from tagger.scoring.scorer import SCORES

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel

Floats = npt.NDArray[np.float32]

_NORMALISED = ("gamma", "beta", "moving_mean", "moving_variance")
_TOLERANCE = 1e-5
_FLOAT32 = 0


def make_template(entries: list[MusicnnModel]) -> Template:
    """Make the template of the network that some published models share.

    Raises
    ------
    ValueError
        If nobody knows what a part of the file is made of.
    """
    from tagger.network.model import build_model

    config = entries[0].config()
    front_end = config.make_front_end()
    model = build_model(config, front_end, entries[0].tags)
    drawn, files = [], []
    for seed in (0, 1):
        drawn.append(_draw(model, seed))
        files.append(_exported(model))
    parts = []
    for (at, values), (_, others) in zip(*map(_float_buffers, files), strict=True):
        if not np.array_equal(values, others):
            parts.append(_recognised(at, (values, others), drawn, epsilon=_epsilon(model)))
    content = bytearray(files[0])
    for part in parts:
        n_bytes = part.values(drawn[0], epsilon=_epsilon(model)).nbytes
        content[part.at : part.at + n_bytes] = bytes(n_bytes)
    shapes = {name: tuple(variable.shape) for name, variable in model.weights.items()}
    sizes = {name: int(output.shape[-1]) for name, output in model.output_model.output.items()}
    template = Template(bytes(content), tuple(parts), shapes, sizes, _epsilon(model), {})
    answers = {entry.name: _answers(model, front_end, entry, template) for entry in entries}
    return replace(template, answers=answers)


def _epsilon(model: "TaggerModel") -> float:
    (epsilon,) = {layer.epsilon for layer in model.layers if hasattr(layer, "epsilon")}
    return float(epsilon)


def _draw(model: "TaggerModel", seed: int) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, variable in model.weights.items():
        values = rng.normal(size=tuple(variable.shape)).astype(np.float32)
        if name.endswith("/moving_variance"):
            values = np.abs(values) + np.float32(0.5)
        variable.assign(values)
        drawn[name] = values
    return drawn


def _exported(model: "TaggerModel") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        EXPORTERS.get("litert")().write(model, path, "none")
        return path.read_bytes()


def _float_buffers(content: bytes) -> Iterator[tuple[int, Floats]]:
    """First byte and values of each constant of a LiteRT file that is made of float32."""
    from ai_edge_litert.schema_py_generated import Model

    whole = np.frombuffer(content, dtype=np.uint8)
    model = Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if tensor.Type() == _FLOAT32 and isinstance(data, np.ndarray):
            at = data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            yield at, data.view(np.float32)


def _recognised(
    at: int, values: tuple[Floats, Floats], drawn: list[dict[str, Floats]], *, epsilon: float
) -> Part:
    """Find what a stretch of the two files is made of."""
    for part in _candidates(at, len(values[0]), drawn[0]):
        for found, weights in zip(values, drawn, strict=True):
            made = part.values(weights, epsilon=epsilon).ravel()
            scale = float(np.abs(found).max())
            if made.shape != found.shape or np.abs(made - found).max() > _TOLERANCE * scale:
                break
        else:
            return part
    raise ValueError(f"{len(values[0])} values at byte {at} are made of nothing that is known")


def _candidates(at: int, size: int, weights: Weights) -> Iterator[Part]:
    """All that a stretch of so many values could be."""
    norms = [name.partition("/")[0] for name in weights if name.endswith("/gamma")]
    for norm in norms:
        if len(weights[f"{norm}/gamma"]) == size:
            for kind in ("scale", "shift", "scale up", "scale down"):
                yield Part(at, kind, norm)
    lengths = {norm: len(weights[f"{norm}/gamma"]) for norm in norms}
    for name in weights:
        layer, _, kind = name.partition("/")
        if kind not in ("kernel", "bias") or weights[name].size != size:
            continue
        kernel = weights[f"{layer}/kernel"]
        near = ["", *(norm for norm in norms if lengths[norm] == kernel.shape[-2])]
        if kernel.ndim > 2 and kind == "bias":
            # At the edges of a clip what comes before is padded: not to be folded.
            near = [""]
        behind = ["", *(norm for norm in norms if lengths[norm] == kernel.shape[-1])]
        for before, after in itertools.product(near, behind):
            if kind == "bias":
                yield Part(at, kind, layer, before, after)
                continue
            for axes in itertools.permutations(range(kernel.ndim)):
                yield Part(at, kind, layer, before, after, axes)


def _answers(
    model: "TaggerModel", front_end: FrontEnd, entry: MusicnnModel, template: Template
) -> Floats:
    """Scores that Keras gives with the weights of a published model."""
    for name, tensor in published_tensors(entry, template.shapes, cached_wheel()).items():
        model.weights[name].assign(tensor)
    windows = windows_of_demo(front_end)
    scores: Floats = model.output_model(windows.windows, training=False)[SCORES].numpy()
    return scores


def networks() -> dict[str, list[MusicnnModel]]:
    """Group the published models by the network that they share."""
    found: dict[str, list[MusicnnModel]] = {}
    for entry in ENTRIES:
        found.setdefault(entry.network, []).append(entry)
    return found


def main() -> None:
    """Write all templates."""
    for name, entries in networks().items():
        path = FOLDER / f"{name}.npz"
        make_template(entries).save(path)
        notice(f"{path}: {path.stat().st_size:,d} bytes")


if __name__ == "__main__":
    main()
