"""`ns-prune demo`: pruning on the built-in scene, start to end."""
