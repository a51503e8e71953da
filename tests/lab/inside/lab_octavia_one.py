"""lab_octavia_one.py PORT: Octavia's API, and in the same process what stands for its load balancers."""

import importlib
import os
import sys
from pathlib import Path

from lab_serve import serve


def main():
    port = int(sys.argv[1])
    # It reads its command line when it is imported, and knows no variable for its configuration.
    sys.argv = ["octavia", "--config-file", str(Path(os.environ["LAB_ROOT"], "etc/octavia/octavia.conf"))]
    application = importlib.import_module("octavia.wsgi.api").application
    importlib.import_module("lab_octavia").start()
    serve(application, port, threads=4)


if __name__ == "__main__":
    main()
