"""What is done with a file of `ns-prune export`: it is measured, and made a run again."""
