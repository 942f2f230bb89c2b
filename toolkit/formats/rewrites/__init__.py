"""How operators are emitted by `toolkit.formats.onnx_normalise`, for those that are not emitted as they are."""

from toolkit.formats.rewrites import arithmetic, moves, sequences, structure, windows

__all__ = ["arithmetic", "moves", "sequences", "structure", "windows"]
