"""The last line of defence: whether what was bounded computes what the files say, in the query's own boxes."""
