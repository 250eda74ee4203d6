"""CASLIE on Ray: product images become captions worth reading, and language models learn from them."""

__version__ = "0.2.0"
