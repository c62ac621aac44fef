#!/usr/bin/env python3
"""Runs tests of the blob store over an object store whose network misbehaves: usage

    tests/services.py run --s3 -- python3 src/blob/test_blob_s3_network.py TEST_PROGRAM
"""

import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from faultproxy import FaultProxy

# A multipart upload that was begun, and nobody heard of it, is left over until a sweep: the tests
# count what there is, so that answers of that kind arrive.
HEARD = {"PutObject", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload",
         "DeleteObjects", "GetObject", "HeadObject"}

FAULTS = {
    "503 before and 500 after it was done": lambda proxy: (
        proxy.fail(503, share=0.15), proxy.fail(500, share=0.1, kinds=HEARD, after=True)),
    "connections that break": lambda proxy: (
        proxy.drop("request", share=0.05, kinds=HEARD),
        proxy.drop("answer", share=0.05, kinds=HEARD),
        proxy.drop("before_answer", share=0.05, kinds=HEARD)),
}
TESTS = ["any_size_as_clients_push", "any_size_in_chunks_of_any_size", "many_push_large_*",
         "a_commit_that_no_row_*", "discarding_*"]


def main():
    program = sys.argv[1]
    port = urllib.parse.urlsplit(os.environ["HOLDFAST_TEST_S3"]).port
    for name, misbehave in FAULTS.items():
        with FaultProxy(port) as proxy:
            misbehave(proxy)
            environment = dict(os.environ, HOLDFAST_TEST_S3=proxy.endpoint)
            for test in TESTS:
                subprocess.run([program, test], env=environment, check=True, timeout=200)
            print(f"{name}: {proxy.injected} faults in {proxy.count()} requests", flush=True)
            if proxy.injected < 20:
                sys.exit("there were too few faults to prove anything")


if __name__ == "__main__":
    main()
