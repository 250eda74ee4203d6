"""Decoding and resizing of untrusted image files, in a separate process with limited memory and time.

The decoder process imports this package, so it imports neither Ray, nor pyarrow, nor the profiles.
"""
