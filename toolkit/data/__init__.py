"""Data sets by name: tensors in [0, 1], with normalisation left to the model."""
