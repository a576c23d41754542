"""Tensors in, tensors out: Prithvi backbones, heads, training, bundles and the runtime. Opens no raster."""
