"""prunecert: prune neural networks, export them, and certify them with a complete verifier.

The package imports nothing on its own: commands that do not need torch must start without it.
"""

__version__ = "0.1.0"
