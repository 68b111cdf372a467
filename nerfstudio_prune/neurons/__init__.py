"""Structured (neuron) and unstructured (edge) pruning of multilayer perceptrons in pure PyTorch."""
