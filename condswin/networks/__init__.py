"""Swin U-Nets, plain and conditional."""

from condswin.networks.models import PRESETS, create_model, is_unrolled, list_variants

__all__ = ["PRESETS", "create_model", "is_unrolled", "list_variants"]
