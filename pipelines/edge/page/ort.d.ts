// What is used of onnxruntime-web.

export class Tensor {
  constructor(type: "float32", data: Float32Array, dims: readonly number[]);
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

export class InferenceSession {
  static create(model: Uint8Array, options: { executionProviders: string[] }): Promise<InferenceSession>;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  run(given: Record<string, Tensor>): Promise<Record<string, Tensor>>;
}

export const env: {
  wasm: { numThreads: number; wasmPaths: { mjs: string; wasm: string }; wasmBinary: ArrayBuffer };
  logLevel: string;
};
