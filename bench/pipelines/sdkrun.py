"""Runs a compiled pipeline by the unmodified SDK for each line that it reads.

    python sdkrun.py FILE PROJECT LOCATION

Imports and init come once, as in a notebook. For each line it writes the seconds
that making the PipelineJob and its run() took.
"""

import logging
import sys
import time

from google.cloud import aiplatform


def main() -> None:
    """Serve lines until there are no more."""
    logging.disable(logging.INFO)
    aiplatform.init(project=sys.argv[2], location=sys.argv[3])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        job = aiplatform.PipelineJob(
            display_name="pause", template_path=sys.argv[1], enable_caching=False
        )
        job.run()
        print(f"{time.perf_counter() - began:.6f}", flush=True)


if __name__ == "__main__":
    main()
