"""VNN-LIB, both generations: read into a `toolkit.formats.vnnlib.query.Query`, and written."""
