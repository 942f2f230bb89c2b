"""Converters of operators from ONNX to torch, on top of onnx2torch's registry."""
