"""Neuron pruning for Nerfstudio: make a neural radiance field small and fast while it trains."""

__version__ = "0.1.0"
