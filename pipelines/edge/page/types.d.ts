// What passes between the modules; for the type checker alone, no part of the site.

export interface Band {
  name: string;
  stored: boolean;
  reflectance: boolean;
}

export interface ClassDef {
  code: number;
  name: string;
  colour: string;
}

/** What site.json holds. */
export interface Site {
  format: number;
  title: string;
  software: string;
  bundle: string;
  backbone: string;
  scores: Record<string, number>;
  tile: number;
  overlap: number;
  bands: Band[];
  names: Record<string, string[]>;
  codes: Record<string, string>;
  unit: string;
  pixel: number | null;
  time: boolean;
  location: boolean;
  answer: {
    kind: string;
    output: string;
    name: string;
    unit: string;
    classes: ClassDef[];
    dtype: string;
    nodata: number | null;
  };
  temperature: number;
  confidence: string;
  unfamiliar: string | null;
  unfamiliar_limit: number;
  reading: {
    bands: string[];
    scale: number | null;
    offset: number;
    nodata: number | null;
    find_fill: boolean;
    mask_clouds: boolean;
  };
  clouds: Record<string, { bits: number; classes: number[] }>;
  most_pixels: number;
  models: { name: string; file: string }[];
  sample: string | null;
}

/** What a person says of a file; empty where nothing is said. */
export interface Told {
  bands: string;
  scale: string;
  offset: string;
  nodata: string;
  date: string;
  latitude: string;
  longitude: string;
  as_is: boolean;
}

export type Values =
  Uint8Array | Uint16Array | Uint32Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array;

/** Where the pixels lie: an affine, the kind of coordinates, and the tags of the file that say so. */
export interface Place {
  affine: number[] | null;
  crs: Crs | null;
  tags: [number, number[] | string][];
}

export type Crs =
  | { kind: "degrees" }
  | { kind: "mercator" }
  | { kind: "transverse"; longitude: number; latitude: number; scale: number; east: number; north: number }
  | { kind: "metres" }
  | { kind: "other" };

/** A tile as read: values (C, h, w) in the model's unit, 0 where not valid, and 1 where valid (h, w). */
export interface Tile {
  x: Float32Array;
  valid: Uint8Array;
  count: number;
}

/** A GeoTIFF as the model wants it. */
export interface Scene {
  name: string;
  width: number;
  height: number;
  place: Place;
  date: Date | null;
  notes: string[];
  kinds: string[];
  told: boolean;
  pixels: number; // that hold data
  read(top: number, left: number, height: number, width: number): Tile;
  location(top: number, left: number, height: number, width: number): [number, number];
}

/** The maps of a scene, row by row. */
export interface Maps {
  name: string;
  width: number;
  height: number;
  place: Place;
  map: Uint8Array | Uint16Array | Float32Array;
  confidence: Float32Array | null;
  unfamiliar: Float32Array | null;
  colour: { width: number; height: number; step: number; rgba: Uint8ClampedArray<ArrayBuffer> };
  counts: number[];
  hectares: number[] | null;
  valid: number;
  outside: number | null;
  notes: string[];
  seconds: number;
  tiles: number;
}
