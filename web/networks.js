// Runs the codec's networks in onnxruntime-web, in sessions that are created when they are first needed.

import { FileError } from "./bitstream.js";
import * as ort from "./vendor/ort.wasm.min.mjs";

export class Networks {
  /** `graphs` has the names of each graph's weights; `weights` are GraphWeights. */
  constructor(graphs, weights) {
    this.graphs = graphs;
    this.weights = weights;
    this.sessions = {};
    ort.env.wasm.wasmPaths = new URL("vendor/", import.meta.url).href;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
    ort.env.logLevel = "error";
  }

  get numThreads() {
    return ort.env.wasm.numThreads;
  }

  /** Resolves to the session of a network, created on first use. */
  async session(name) {
    if (this.sessions[name] === undefined) {
      const response = await fetch(new URL(`graphs/${name}.onnx`, import.meta.url));
      if (!response.ok) throw new FileError(`The model does not load (${name}.onnx: status ${response.status}). Reload the page.`);
      const bytes = new Uint8Array(await response.arrayBuffer());
      const externalData = this.graphs[name].map((weight) => {
        const values = this.weights.get(weight);
        return { path: weight, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice() };
      });
      // Networks on integers are not optimized, because an addition fused with a product would round differently.
      const isExact = name.startsWith("context") || name === "hyper_synthesis";
      this.sessions[name] = await ort.InferenceSession.create(bytes, {
        executionProviders: ["wasm"], graphOptimizationLevel: isExact ? "disabled" : "all", externalData,
      });
    }
    return this.sessions[name];
  }

  /** Run a network on inputs { name: [type, values, shape] }; resolves to { values, shape } of its only output. */
  async run(name, inputs) {
    const session = await this.session(name);
    const feeds = {};
    for (const [key, [type, values, shape]] of Object.entries(inputs)) feeds[key] = new ort.Tensor(type, values, shape);
    const outputs = await session.run(feeds);
    const output = outputs[session.outputNames[0]];
    return { values: output.data, shape: output.dims };
  }
}
