"""Outputs for windows -> scores of a clip, alike in training and prediction; with NumPy alone."""
