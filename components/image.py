"""The image that components name until a pipeline sets those of its pools."""

IMAGE = "condswin:latest"
