from __future__ import annotations

import subprocess
import sys


def test_the_report_room_knows_no_torch_and_leaves_pyplot_alone() -> None:
    code = """
import sys
import des4.report.compare_page, des4.report.page, des4.report.pictures, des4.report.plots
print([name for name in ("torch", "matplotlib.pyplot") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert found.stdout.strip() == "[]"
