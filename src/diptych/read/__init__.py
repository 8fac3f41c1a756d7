"""The read side: views, projections, the engine that keeps them, queries, and the proof."""
