"""What is written: GeoTIFF, NetCDF, STAC item, picture, polygons."""
