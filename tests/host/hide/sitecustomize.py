"""With this folder on PYTHONPATH, Python does not find the packages that CHAMP_HIDE names.

CHAMP_HIDE is JSON: {"modules": top-level modules, "distributions": normalised names}."""

import json
import os
import re
import sys

hidden = json.loads(os.environ["CHAMP_HIDE"])
MODULES, DISTRIBUTIONS = set(hidden["modules"]), set(hidden["distributions"])


class Filter:
    """A finder that looks through everything but the hidden packages."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MODULES:
            return None
        return self.finder.find_spec(name, path, target)

    def find_distributions(self, *args, **kwargs):
        for found in getattr(self.finder, "find_distributions", lambda *a, **k: ())(*args, **kwargs):
            if re.sub(r"[-_.]+", "-", found.metadata["Name"] or "").lower() not in DISTRIBUTIONS:
                yield found


sys.meta_path[:] = [Filter(finder) for finder in sys.meta_path]
