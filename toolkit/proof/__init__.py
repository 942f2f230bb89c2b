"""Certificates of `unsat`: their format, and a checker that imports nothing of this package outside this folder."""
