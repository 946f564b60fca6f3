"""Conditional Swin U-Nets for MRI reconstruction and CT segmentation, and the steps that retrain and promote them."""

__version__ = "0.1.0"
