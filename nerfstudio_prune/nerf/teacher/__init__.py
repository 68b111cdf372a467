"""Recovery with the dense network as a teacher."""
