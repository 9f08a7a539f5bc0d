"""`prunas`, whose trainings are counted: `drive.py search ...`."""

import sys

from prunas.cli import main
from prunas.works import trainings as jobs

if __name__ == "__main__":
    jobs.WORK = "counted"
    main(sys.argv[1:])
