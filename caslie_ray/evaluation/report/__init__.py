"""The report page: its data classes, the choice of its views, its texts and images within limits, its HTML."""
