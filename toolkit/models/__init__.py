"""Architectures by name, each a ``torch.nn.Sequential`` whose first layer normalises the input."""
