"""The Ray cluster: connecting, the parallel map, capacity, and spot preemptions."""
