"""Runs pruning inside Nerfstudio's training loop, whatever is pruned."""
