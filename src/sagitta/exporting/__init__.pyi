from .export import Exported as Exported
from .export import export as export
from .formats import FORMATS as FORMATS
from .proof import ExportError as ExportError
from .pushing import Pushed as Pushed
from .pushing import push as push
