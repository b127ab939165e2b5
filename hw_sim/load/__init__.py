"""Load for benchmarks: plan.py, what is offered; readers.py, null.py, tally.py, a far end; check.py, both."""
