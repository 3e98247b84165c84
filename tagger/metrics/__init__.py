"""Labels and scores -> figures, intervals, calibration; with NumPy alone."""
