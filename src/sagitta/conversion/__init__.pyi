from .mending import STAYS as STAYS
from .options import ConvertOptions as ConvertOptions
from .pipeline import cached as cached
from .pipeline import convert as convert
from .splits import deal as deal
from .splits import units_of as units_of
