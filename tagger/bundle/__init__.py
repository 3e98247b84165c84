"""A model as one checked folder: written, read, found by name, and run without TensorFlow."""
