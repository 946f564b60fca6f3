"""Conditional Swin U-Nets for MRI reconstruction and CT segmentation, and the steps that retrain and promote them."""

import os

__version__ = "0.1.0"

# Before torch loads OpenMP: threads that wait by spinning make two processes on two cores, or a pod with less CPU than
# the node has cores, ten times slower than threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
