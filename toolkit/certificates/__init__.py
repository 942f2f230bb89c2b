"""Certificates written while a query is searched: what a search states about its program, in the terms of the file."""
