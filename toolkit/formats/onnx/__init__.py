"""ONNX files: read, checked, run, and made into few operators that torch can take."""
