"""The benchmark: ours, the peers and a bare floor in one run, in turn, medians and ratios."""
