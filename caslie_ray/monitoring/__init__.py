"""Progress lines, Prometheus metrics, and the Grafana dashboard."""
