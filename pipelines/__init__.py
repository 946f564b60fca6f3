"""Kubeflow pipelines: the components chained, variants unrolled from the parameters."""
