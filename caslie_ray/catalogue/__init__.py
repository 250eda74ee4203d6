"""Catalogues of shops: formats of exports, products, and the contexts that captions are written for."""
