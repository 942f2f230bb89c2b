"""Other libraries that bound networks, beside the bounds of our own."""
