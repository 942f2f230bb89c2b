"""How operators are emitted by `toolkit.formats.onnx.normalise`, for those that are not emitted as they are."""
