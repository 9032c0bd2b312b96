from .engine import Engine as Engine
from .engine import Found as Found
from .engine import Named as Named
from .engine import Wanted as Wanted
from .opening import open_engine as open_engine
from .refusal import Limits as Limits
from .refusal import RequestError as RequestError
from .server import serve as serve
