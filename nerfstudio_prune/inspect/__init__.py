"""`ns-prune inspect`: what a finished run looks like inside."""
