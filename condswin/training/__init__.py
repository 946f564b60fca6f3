"""Fitting a network to a task with Lightning."""

from condswin.training.fit import Fitted, decisive, fit, steps_of

__all__ = ["Fitted", "decisive", "fit", "steps_of"]
