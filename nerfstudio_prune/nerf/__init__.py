"""The vanilla-NeRF family: its model, its neurons as what is pruned, its methods' configuration."""
