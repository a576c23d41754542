"""How a model runs: engines, export, graphs, what is compiled, what rounding changes."""
