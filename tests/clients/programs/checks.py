"""What the programs are given, and how they compare; runs in environments without NumPy."""

import json
import math
import sys


class Expected:
    """The command line: the server's address, the file of expected answers, the API key."""

    def __init__(self):
        self.url, path, self.key = sys.argv[1:]
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        self.texts, self.vectors = content["texts"], content["vectors"]
        self.documents, self.int8 = content["documents"], content["int8"]
        self.order, self.scores = content["order"], content["scores"]

    def same(self, rows, wanted=None, tolerance=1e-6):
        """Check that rows are those expected."""
        wanted = self.vectors if wanted is None else wanted
        assert len(rows) == len(wanted), (len(rows), len(wanted))
        for row, other in zip(rows, wanted, strict=True):
            assert len(row) == len(other), (len(row), len(other))
            assert all(abs(a - b) <= tolerance for a, b in zip(row, other, strict=True))

    def ranked(self, order, scores):
        """Check an order of the texts, and their scores."""
        assert list(order) == self.order, (order, self.order)
        assert all(map(lambda a, b: math.isclose(a, b, abs_tol=1e-6), scores, self.scores))
