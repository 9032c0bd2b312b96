"""What Sagitta does, one function a command, and a run that was opened.

Nothing here ends the process or prints a result: an error is a :class:`sagitta.SagittaError`, and what is returned
shows itself in a notebook. While something long runs, a few lines say how far it is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
