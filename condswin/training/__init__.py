"""Fitting a network to a task with Lightning."""

from condswin.training.fit import Fitted, fit

__all__ = ["Fitted", "fit"]
