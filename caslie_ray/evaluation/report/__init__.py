"""The report page: its data classes, the order of its views, its texts and thumbnails within limits, its HTML."""
