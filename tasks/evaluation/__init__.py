"""What an evaluation found, written down: tables, plots, ``report.html`` and ``metrics.json``."""
