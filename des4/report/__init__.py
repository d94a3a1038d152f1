"""Plots, picture grids, `report.html` and the comparison of runs. Reads run folders and arrays; knows no torch."""
