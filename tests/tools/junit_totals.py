"""Prints how many tests of a JUnit report passed and how many did not; a skipped test did not."""

import sys
import xml.etree.ElementTree as ElementTree

cases = list(ElementTree.parse(sys.argv[1]).iter("testcase"))
bad = sum(any(case.find(kind) is not None for kind in ("error", "failure", "skipped")) for case in cases)
print(len(cases) - bad, bad)
