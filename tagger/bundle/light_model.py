"""A bundle as a model that computes with LiteRT, without TensorFlow."""

from collections.abc import Mapping, Sequence

from preprocess.signal.features import FRONT_ENDS
from tagger.bundle.read import Bundle
from tagger.bundle.runtime import Runtime
from tagger.scoring.model import thresholds_as_array
from tagger.scoring.scorer import Scorer

BFLOAT16 = "bfloat16"


class LightModel:
    """A bundle, loaded; a `tagger.scoring.model.Model`.

    Parameters
    ----------
    bundle : Bundle
        The model.
    quantize : str
        Which of its LiteRT models: ``"none"``, ``"dynamic"`` or ``"float16"``; or ``"bfloat16"``:
        the first, computed in bfloat16 by OpenVINO.

    Raises
    ------
    ModelError
        If the bundle is damaged, holds no such model or was made with another front end.
    """

    def __init__(self, bundle: Bundle, *, quantize: str = "none") -> None:
        self.name, self.version = bundle.name, bundle.version
        self._in_bfloat16 = quantize == BFLOAT16
        self.runs_on = "OpenVINO, bfloat16" if self._in_bfloat16 else f"LiteRT, quantize {quantize}"
        self.tags = bundle.tags()
        self.front_end = FRONT_ENDS.create(bundle.front_end["name"], bundle.front_end["params"])
        bundle.require_front_end(self.front_end)
        self.decides_one = bundle.description.decides_one
        self.output_sizes: Mapping[str, int] = bundle.outputs
        self.clip_head = bundle.clip_head()
        self.calibration = bundle.calibration()
        self.thresholds = thresholds_as_array(bundle.thresholds())
        kept = "none" if self._in_bfloat16 else quantize
        self._file = bundle.verified(bundle.export("litert", kept).file)

    def make_scorer(self, names: Sequence[str], *, n_threads: int = 1) -> Scorer:
        """As of `tagger.scoring.model.Model`; it computes all outputs, whichever are wanted."""
        del names
        if self._in_bfloat16:
            from tagger.bundle.openvino_runtime import OpenVinoRuntime

            return OpenVinoRuntime(self._file, n_threads=n_threads, sizes=self.output_sizes)
        return Runtime(self._file, n_threads=n_threads, sizes=self.output_sizes)
