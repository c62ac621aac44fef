"""Counts what the conformance suites report, and names what did not pass.

summary.py [SUITE REPORT CODE]...: a suite's name, its JUnit report and its exit code; without
a report the suite was not run, and CODE says why. The exit code is 1 when anything failed.
"""

import sys
import xml.etree.ElementTree as xml
from pathlib import Path

NAMES_SHOWN = 200


def read_report(path):
    """[(status, name, text)] with status passed, failed or skipped."""
    cases = []
    for case in xml.parse(path).iter("testcase"):
        status = case.get("status", "passed")
        broken = [case.find(tag) for tag in ("failure", "error")]
        if status in ("failure", "failed", "error", "panicked", "timedout", "interrupted",
                      "aborted") or any(part is not None for part in broken):
            texts = [part.get("message") or part.text for part in broken if part is not None]
            texts += [case.findtext("system-out")]
            cases.append(("failed", case.get("name"), next((t for t in texts if t), "")))
        elif status in ("skipped", "disabled", "pending") or case.find("skipped") is not None:
            cases.append(("skipped", case.get("name"), ""))
        else:
            cases.append(("passed", case.get("name"), ""))
    return cases


def first_lines(text, count=3, width=300):
    return [line.strip()[:width] for line in text.splitlines() if line.strip()][:count]


def report_suite(name, path, code):
    """Prints one suite and returns its numbers of passed, failed and skipped tests."""
    if not path:
        print(f"SKIPPED: the suite of {name} could not be built: {code}")
        return 0, 0, 1
    cases = read_report(path) if Path(path).exists() else []
    passed, failed, skipped = [[case for case in cases if case[0] == status]
                               for status in ("passed", "failed", "skipped")]
    print(f"suite of {name}: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    for _, test, text in failed[:NAMES_SHOWN]:
        print(f"  FAILED  {test}")
        for line in first_lines(text):
            print(f"          {line}")
    for _, test, _ in skipped[:NAMES_SHOWN]:
        print(f"  skipped {test}")
    if not failed and (code != "0" or not passed):
        print(f"  FAILED  the suite itself: exit code {code}, {len(cases)} tests in {path}")
        return len(passed), 1, len(skipped)
    return len(passed), len(failed), len(skipped)


def main(arguments):
    totals = [0, 0, 0]
    for at in range(0, len(arguments), 3):
        for number, count in enumerate(report_suite(*arguments[at:at + 3])):
            totals[number] += count
    print("conformance: {} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] or not sum(totals) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
