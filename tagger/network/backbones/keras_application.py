"""Networks that Keras has with weights of ImageNet, as the comparison report uses them."""

import importlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tagger.base.errors import ConfigError, ModelError
from tagger.base.registry import Params
from tagger.base.suggest import did_you_mean
from tagger.network.backbones import Backbone
from tagger.network.backbones._pictures import picture

IMAGENET = "imagenet"
# Below that the largest of them leave nothing.
_SMALLEST = 32


class KerasApplicationParams(Params):
    """Which network."""

    application: Annotated[
        str, Field(description="name in keras.applications, e.g. ResNet50, MobileNetV2, VGG16")
    ] = "MobileNetV2"
    end: Annotated[
        Literal["average", "max", "flatten"], Field(description="how its maps become a vector")
    ] = "average"
    input: Annotated[str, Field(description="name of the picture")] = "picture"


class KerasApplication(Backbone):
    """A network of Keras without its top, on pictures as its weights were trained on them.

    ``model.backbone.weights`` is ``imagenet``, which Keras downloads, a file of Keras's weights, or
    ``none``.
    """

    Params = KerasApplicationParams
    params: KerasApplicationParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.colours import Colours
        from tagger.network.keras import keras

        x = picture(self, inputs, self.params.input, smallest=_SMALLEST)
        make = self._application()
        matrix, offset = _colours(importlib.import_module(make.__module__).preprocess_input)
        prepared = Colours(matrix.tolist(), offset.tolist(), name="colours")(x)
        try:
            maps = make(include_top=False, weights=None, input_tensor=prepared).output
        except ValueError as error:
            raise ConfigError(
                f"backbone {self.name!r}: {self.params.application} takes no pictures of "
                f"{x.shape[1]} x {x.shape[2]} ({str(error).splitlines()[0]}); set "
                "front_end.params.height and width"
            ) from None
        end = {
            "average": keras.layers.GlobalAveragePooling2D,
            "max": keras.layers.GlobalMaxPool2D,
            "flatten": keras.layers.Flatten,
        }[self.params.end]
        return end(name="pooled")(maps)

    def load_named(self, model: Any, name: str) -> list[str] | None:
        """Load the weights of ImageNet, which Keras downloads and checks."""
        if name != IMAGENET:
            return None
        try:
            # Of any size: its weights are filters.
            published = self._application()(include_top=False, weights=IMAGENET)
        except Exception as error:  # Keras raises what the network does.
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ModelError(
                f"model.backbone.weights=imagenet: {self.params.application} cannot be downloaded "
                f"({reason}); download its no-top weights elsewhere and give their path, or set "
                "model.backbone.weights=none"
            ) from None
        theirs = {weight.name: weight for weight in published.weights}
        for weight in model.weights:
            weight.assign(theirs[weight.name].numpy())
        return sorted(theirs)

    def _application(self) -> Any:
        from tagger.network.keras import keras

        names = [name for name in dir(keras.applications) if name[0].isupper()]
        wanted = self.params.application
        if wanted not in names:
            raise ConfigError(
                f"model.backbone.params.application={wanted}{did_you_mean(wanted, names)}: Keras "
                "has no such network; e.g. ResNet50, MobileNetV2, VGG16"
            )
        return getattr(keras.applications, wanted)


def _colours(
    prepare: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Find out what a family of networks does to colours: a matrix, and an offset.

    Each has its own way (from -1 to 1, or less the mean of ImageNet in another order). Asked for
    black and for each colour alone, its function tells; as a part of a graph not all formats take
    it.
    """
    asked = np.concatenate([np.zeros((1, 3)), np.eye(3)]).astype(np.float32)
    black, *alone = prepare(asked.reshape(4, 1, 1, 3).copy()).reshape(4, 3)
    return np.stack([colour - black for colour in alone]), black


ENTRY = KerasApplication
