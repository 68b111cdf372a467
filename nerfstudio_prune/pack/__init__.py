"""The Gaussians of a run as one small file: views of the run, how far to round, what the file is worth."""
