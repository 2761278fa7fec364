"""Small networks in the layout of the official ones are in modules beside the tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
