"""Recurrent layers that see a sequence to its end, and that can be exported.

Keras gathers the outputs of all steps in a list of tensors, which LiteRT has for batches of a fixed
size only. Outside training the steps are therefore taken here, with the weights of the Keras layers
and without such a list; in training by Keras, which has a fast way on GPUs.
"""

from typing import Any

from tagger.network.keras import keras, tf


@keras.utils.register_keras_serializable("tagger")
class LastOutput(keras.layers.Layer):
    """Output of stacked LSTM or GRU layers at the last step of a sequence.

    Parameters
    ----------
    kind : {"lstm", "gru"}
        Which cell. The GRU is that of its paper (Cho et al., 2014): it resets before it multiplies.
    units : int
        Of each layer.
    n_layers : int
        Stacked layers.
    backwards : bool
        From the last step to the first.
    dropout : float
        Of the inputs of each layer, in training.
    """

    def __init__(
        self,
        kind: str,
        units: int,
        *,
        n_layers: int = 1,
        backwards: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._settings = {
            "kind": kind,
            "units": units,
            "n_layers": n_layers,
            "backwards": backwards,
            "dropout": dropout,
        }
        self._backwards = backwards
        # By names that no other layer has: the states of their generators are saved by name.
        self._dropouts = [
            keras.layers.Dropout(dropout, name=f"{self.name}_dropout{n}") for n in _up_to(n_layers)
        ]
        self._stacked = []
        for number in _up_to(n_layers):
            how: dict[str, Any] = {"return_sequences": number < n_layers, "name": f"{kind}{number}"}
            if kind == "gru":
                how["reset_after"] = False
            layer_of = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind]
            self._stacked.append(layer_of(units, **how))

    def build(self, input_shape: Any) -> None:
        """Make the weights of all layers."""
        shape = tf.TensorShape(input_shape)
        for layer in self._stacked:
            with tf.name_scope(layer.name):
                layer.build(shape)
            shape = tf.TensorShape([*shape[:-1], layer.units])
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Give the last output [shape=(n_windows, units)].

        Parameters
        ----------
        inputs : tensor [shape=(n_windows, n_steps, n_dimensions)]
            Sequences.
        training : bool, optional
            Whether dropout is in training mode.
        """
        if training:
            x = tf.reverse(inputs, [1]) if self._backwards else inputs
            for dropout, layer in zip(self._dropouts, self._stacked, strict=True):
                x = layer(dropout(x, training=True))
            return x
        cells = [layer.cell for layer in self._stacked]
        n_steps, batch = inputs.shape[1], tf.shape(inputs)[0]
        # The states of each cell, the output of which is the first.
        sizes = [size for cell in cells for size in tf.nest.flatten(cell.state_size)]
        states = [tf.zeros(tf.stack([batch, size]), inputs.dtype) for size in sizes]
        by_step = tf.transpose(inputs, [1, 0, 2])

        def step(number: Any, *states: Any) -> tuple[Any, ...]:
            x = tf.gather(by_step, n_steps - 1 - number if self._backwards else number)
            left, found = list(states), []
            for cell in cells:
                own = [left.pop(0) for _ in tf.nest.flatten(cell.state_size)]
                x, new = cell(x, own, training=False)
                found += tf.nest.flatten(new)
            return number + 1, *found

        shapes = [tf.TensorShape([])] + [tf.TensorShape([None, size]) for size in sizes]
        last = tf.while_loop(
            lambda number, *_: number < n_steps,
            step,
            [tf.constant(0), *states],
            shape_invariants=shapes,
        )
        output = last[1 + len(sizes) - len(tf.nest.flatten(cells[-1].state_size))]
        output.set_shape([inputs.shape[0], cells[-1].units])
        return output

    def get_config(self) -> dict[str, Any]:
        """Parameters of the layer."""
        return {**super().get_config(), **self._settings}


def _up_to(number: int) -> range:
    return range(1, number + 1)
