"""Conditional Swin U-Nets for MRI reconstruction and CT segmentation, and the steps that retrain and promote them."""

import os

__version__ = "0.1.0"

# Before torch loads OpenMP. By default its threads spin for long while they wait, which makes two processes on two
# cores, or a pod with less CPU than the node has cores, many times slower; threads that sleep at once make a training
# alone twice as slow. A short spin has most of both.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
