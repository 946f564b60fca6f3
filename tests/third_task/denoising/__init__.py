"""Denoising: smooth images from noisy ones. A small task, to see that a third one touches no folder but its own."""
