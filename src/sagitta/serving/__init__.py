"""Models behind HTTP: images in, calibrated answers out, within limits; an export is served without torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
