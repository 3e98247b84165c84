"""Classical classifiers: fitted by scikit-learn or XGBoost, kept as ONNX, run by onnxruntime.

`kinds` has a file for each of them, `fitting` chooses their parameters on grouped folds,
`onnx_file` turns what was fitted into ONNX and compares the two, and `onnx_scorer` runs it.
"""
