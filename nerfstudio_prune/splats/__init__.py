"""Splatfacto, pruned while it trains: model, pipeline, options, and what is pruned there."""
