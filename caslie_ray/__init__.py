"""CASLIE on Ray: captions product images for their context, and fine-tunes language models on captions that help."""

__version__ = "0.2.0"
