"""The parameters of every step: a small module per concern, so that a step depends on the ones that it reads only.

Each task's own section lies in its folder (`mri/config.py`, `ct/config.py`).
"""
