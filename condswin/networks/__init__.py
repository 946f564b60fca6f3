"""Swin U-Nets, plain and conditional.

"The thesis" is Luigi Antonelli, "Lightweight Conditional Swin U-Net for Medical Image reconstruction and segmentation",
Sapienza Università di Roma, 2022/2023; "slides" are those of its defence.
"""
