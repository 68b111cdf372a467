"""What is asked of the views of a data set before and while a model trains on them."""
