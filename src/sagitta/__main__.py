"""`python -m sagitta` is `sagitta`."""

import sys

from sagitta.cli import main

sys.exit(main())
