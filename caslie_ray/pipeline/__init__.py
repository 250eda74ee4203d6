"""The engine room: pools of model replicas, and passes over a run that ask them."""
