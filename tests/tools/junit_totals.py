"""Prints how many tests of a JUnit report passed and how many did not; a skipped test did not."""

import sys
import xml.etree.ElementTree as ElementTree

total = bad = 0
for suite in ElementTree.parse(sys.argv[1]).iter("testsuite"):
    total += int(suite.get("tests"))
    bad += sum(int(suite.get(kind)) for kind in ("errors", "failures", "skipped"))
print(total - bad, bad)
