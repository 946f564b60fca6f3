"""The image that components name until a pipeline sets another one (`cluster.image` in the parameters)."""

IMAGE = "condswin:latest"
