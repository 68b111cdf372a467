"""Records of measurements: their schema and their files."""
