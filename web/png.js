// Writes PNG files with a color profile.

import { crc32 } from "./bitstream.js";

const COLORS = ["cHRM", "cICP", "gAMA", "iCCP", "sRGB"]; // chunks about colors that a profile replaces

/** Give a PNG a color profile, which is a zlib stream as in .jahp files. */
export async function withProfile(blob, profile) {
  const data = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(data.buffer);
  const parts = [data.subarray(0, 8)];
  for (let start = 8; start < data.length; ) {
    const stop = start + 12 + view.getUint32(start);
    const name = String.fromCharCode(...data.subarray(start + 4, start + 8));
    if (!COLORS.includes(name)) parts.push(data.subarray(start, stop));
    if (name === "IHDR") parts.push(profileChunk(profile));
    start = stop;
  }
  return new Blob(parts, { type: "image/png" });
}

/** Create the iCCP chunk with a profile. */
function profileChunk(profile) {
  const head = new TextEncoder().encode("iCCPprofile\0\0"); // type, name, 0 for zlib
  const chunk = new Uint8Array(4 + head.length + profile.length + 4);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, chunk.length - 12);
  chunk.set(head, 4);
  chunk.set(profile, 4 + head.length);
  view.setUint32(chunk.length - 4, crc32([chunk.subarray(4, -4)]));
  return chunk;
}
