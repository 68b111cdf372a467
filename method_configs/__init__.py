"""Methods that `ns-train` offers; reached through the entry points."""
