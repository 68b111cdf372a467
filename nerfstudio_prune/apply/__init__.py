"""`ns-prune apply`: a finished run, cut, as a new run."""
