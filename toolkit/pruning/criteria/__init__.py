"""Pruning criteria: the record of each one's options, and the scores or masks that it gives."""
