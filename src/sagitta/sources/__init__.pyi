from .base import SourceOptions as SourceOptions
from .builtin import BUILTIN as BUILTIN
from .detect import LAYOUTS as LAYOUTS
from .detect import open_source as open_source
from .folders import image_files as image_files
from .words import LAYOUT_NAMES as LAYOUT_NAMES
from .words import UNDERSTOOD as UNDERSTOOD
