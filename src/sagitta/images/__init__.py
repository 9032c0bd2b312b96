"""Encoded bytes <-> uint8 pixels. numpy, Pillow and a compiled core; no torch, no Arrow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
