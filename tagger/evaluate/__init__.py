"""Model and clips -> evaluation, comparison, report."""
