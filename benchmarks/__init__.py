"""Benchmarks: one script per measured claim, peers run beside us."""
