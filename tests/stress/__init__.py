"""Attempts to break the project, by many seeded inputs. Each script is also a command of its own."""
