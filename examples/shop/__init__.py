"""A shop, twice: ``orders`` is the ordering example in one file, ``retail`` replays a real year."""
