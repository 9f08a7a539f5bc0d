"""A driver in a process of its own: `drive.py ROOT EXECUTOR OPTIONS JOBS [die]`, outcomes as JSON lines.

With `die` it kills itself, without grace, at the first message of the last job.
"""

import json
import os
import signal
import sys
from pathlib import Path

from prunas.runs.executors import executor
from prunas.runs.job import Job
from prunas.runs.store import Store


def main(root, name, options, jobs, *die):
    last = Job.from_json(json.loads(jobs)[-1])

    def report(job, message):
        print(json.dumps({"id": job.id, "message": message}), flush=True)
        if die and job == last:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with executor(name, Store(Path(root)), report, **json.loads(options)) as running:
            for document in json.loads(jobs):
                running.submit(Job.from_json(document))
            for outcome in running.completed():
                print(json.dumps({"id": outcome.job.id, "status": outcome.status}), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
