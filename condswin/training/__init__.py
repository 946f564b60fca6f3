"""Fitting a network to a task with Lightning."""

from condswin.training.fit import Fitted, decisive, fit

__all__ = ["Fitted", "decisive", "fit"]
