"""Scores on held-out cases: predictions on disk, one row per case, summaries with spread."""
