"""Shoal: an inference server in Python that speaks Triton's protocols and reads its model repositories."""

__version__ = "0.1.0"
