"""The benchmark: ours and a bare floor in one run, several rounds in turn, medians."""
