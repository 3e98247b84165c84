"""Config -> Keras network; the only room that imports TensorFlow."""
