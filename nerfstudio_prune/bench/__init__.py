"""Benchmarks: measure, keep as records, report."""
