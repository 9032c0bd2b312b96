"""A dataset and what it holds -> what a person should look at before trusting it: findings, worst first."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
