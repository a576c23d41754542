// What is used of geotiff.js, which puts itself among the globals.

interface TiffDirectory {
  hasTag(tag: number): boolean;
  loadValue(tag: number): Promise<any>;
}

interface TiffImage {
  readonly fileDirectory: TiffDirectory;
  getWidth(): number;
  getHeight(): number;
  getSamplesPerPixel(): number;
  getGeoKeys(): Record<string, any> | null;
  getGDALNoData(): number | null;
  getGDALMetadata(sample?: number): Promise<Record<string, string> | null>;
  readRasters(options: { samples: number[]; interleave: false }): Promise<import("./types").Values[]>;
}

declare global {
  const GeoTIFF: {
    fromBlob(blob: Blob): Promise<{ getImage(index: number): Promise<TiffImage>; getImageCount(): Promise<number> }>;
  };
}

export {};
