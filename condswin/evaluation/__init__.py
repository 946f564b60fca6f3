"""Scores of a network on held-out cases: predictions on disk, one row per case, summaries with spread."""

from condswin.evaluation.run import evaluate_split
from condswin.evaluation.summary import Summary, paired_gain, summarise

__all__ = ["Summary", "evaluate_split", "paired_gain", "summarise"]
