"""Scenes that come with the plugin."""
