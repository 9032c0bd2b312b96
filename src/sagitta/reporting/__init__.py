"""Runs -> one self-contained page that a person would rather look at than read logs, and figures for a paper."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
