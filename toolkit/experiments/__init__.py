"""Whole runs that leave a folder of results: a benchmark answered, a study of a recipe, certified accuracy on rows."""
