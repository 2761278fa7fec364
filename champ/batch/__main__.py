"""python -m champ.batch TABLE --workflow FILE --out FOLDER: all clips of a table, on all cards of a cluster."""

import sys

from .command import main

sys.exit(main(sys.argv[1:]))
