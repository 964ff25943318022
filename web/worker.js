// Runs the codec in a thread of its own, so that the page stays responsive. An answer has the id of its request.

import { FileError } from "./bitstream.js";
import { Codec } from "./codec.js";

let codec = null;
let analyzed = null;

const progress = (share) => postMessage({ progress: share });
const seconds = (since) => (performance.now() - since) / 1000;

const requests = {
  async load() {
    codec = await Codec.load((done, total) => progress(done / total));
    return { fingerprint: codec.fingerprint, numLevels: codec.numLevels, numThreads: codec.networks.numThreads };
  },

  async decode({ data }) {
    const start = performance.now();
    const { header, rgb, yHat, zHat } = await codec.decode(data, progress);
    return { header, rgb, yHat, zHat, seconds: seconds(start) };
  },

  /** Set the image that `encode` encodes: RGB, channel after channel. */
  async analyze({ rgb, width, height, isGray }) {
    const start = performance.now();
    analyzed = { latents: await codec.analyze(rgb, width, height, progress), width, height, isGray };
    return { seconds: seconds(start) };
  },

  async encode({ quality }) {
    const start = performance.now();
    const { latents, width, height, isGray } = analyzed;
    const { data, header, yHat, zHat } = await codec.encode(latents, width, height, isGray, quality, (share) => progress(share / 2));
    const encoded = seconds(start);
    const rgb = await codec.synthesize(yHat, latents.height, latents.width, header, (share) => progress((1 + share) / 2));
    return { data, header, rgb, yHat, zHat, seconds: encoded };
  },
};

let last = Promise.resolve(); // requests run one after another, because they share sessions

onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};

async function answer({ id, what, ...rest }) {
  try {
    postMessage({ id, result: await requests[what](rest) });
  } catch (error) {
    const sentence = error instanceof FileError ? error.message : `Something went wrong: ${error.message ?? error}.`;
    postMessage({ id, error: sentence });
  }
}
