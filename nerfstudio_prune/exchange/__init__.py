"""What every file that is passed on between people goes through: errors, limits, bounded decompression."""
