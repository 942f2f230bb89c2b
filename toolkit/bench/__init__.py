"""Answering many instances: jobs, executors, the journal, benchmark folders, scores, VNN-COMP."""
