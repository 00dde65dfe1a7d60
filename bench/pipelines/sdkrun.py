"""Runs a compiled pipeline by the unmodified SDK for each line that it reads.

    python sdkrun.py FILE PROJECT LOCATION

Imports and init come once, as in a notebook. A line is the job's id, or empty for
the SDK's own. For each it writes the seconds that making the PipelineJob and its run()
took.
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
    for line in sys.stdin:
        began = time.perf_counter()
        job = aiplatform.PipelineJob(
            display_name="pause",
            template_path=sys.argv[1],
            enable_caching=False,
            job_id=line.strip() or None,
        )
        job.run()
        print(f"{time.perf_counter() - began:.6f}", flush=True)


if __name__ == "__main__":
    main()
