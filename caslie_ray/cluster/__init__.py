"""The Ray cluster: connecting, capacity, and spot preemptions."""
