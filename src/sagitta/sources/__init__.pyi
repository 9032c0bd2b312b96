from .base import SourceOptions as SourceOptions
from .builtin import BUILTIN as BUILTIN
from .detect import LAYOUTS as LAYOUTS
from .detect import open_source as open_source
from .words import UNDERSTOOD as UNDERSTOOD
