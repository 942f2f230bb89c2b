"""How operators are emitted by `toolkit.formats.onnx.normalise`, for those that are not emitted as they are."""

from toolkit.formats.onnx.node_rewrites import arithmetic, moves, sequences, shape_operators, window_rewrites

__all__ = ["arithmetic", "moves", "sequences", "shape_operators", "window_rewrites"]
