"""What is done with a file of `ns-prune export`: it is looked at, measured, and made a run again."""
