"""`ns-prune report`: from records to tables, plots and a page."""
