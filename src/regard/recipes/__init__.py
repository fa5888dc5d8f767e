"""Whole systems, one a file, each read top to bottom."""
