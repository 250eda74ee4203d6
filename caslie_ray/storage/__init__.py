"""A run on disk or in an object store: tables, atomic writes, the lease."""
