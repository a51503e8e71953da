"""Failures that a test ordered: LAB_ROOT/failures.json, a list of {"match", "kind", "text", "left"}.

``match`` is a regular expression for the server's whole name, ``kind`` one of "no-valid-host", "quota", "abort"
and "crash", ``left`` how many servers still are to fail (null: all).
"""

import fcntl
import json
import os
import pathlib
import re

FILE = pathlib.Path(os.environ["LAB_ROOT"], "failures.json")


def take(name, kinds):
    """The next failure of one of these kinds that is meant for a server of this name, or None; it is then used up."""
    try:
        file = FILE.open("r+")
    except FileNotFoundError:
        return None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        orders = json.load(file)
        for order in orders:
            if order["kind"] in kinds and order["left"] != 0 and re.fullmatch(order["match"], name):
                if order["left"] is not None:
                    order["left"] -= 1
                file.seek(0)
                file.truncate()
                json.dump(orders, file)
                return order
    return None
