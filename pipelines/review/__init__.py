"""Where a person looks at a map's doubtful regions, or at a sample of points, and what becomes of the answers."""
