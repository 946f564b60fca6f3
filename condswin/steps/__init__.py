"""The pipeline's steps: plain functions from validated parameters and paths to files and a small result.

DVC, the command line and the Kubeflow components call these same functions.
"""
