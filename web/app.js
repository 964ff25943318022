// The page: opens files and shows pictures side by side; the worker does the coding.

import { withProfile } from "./png.js";

const MAX_PIXELS = 2 ** 24;
const MAX_FILE_BYTES = 2 ** 27;
const QUALITY_STEPS = 8; // steps of the search for the quality of JPEG and WebP
const element = (id) => document.getElementById(id);
// WebAssembly code that adds two vectors of bytes; it is valid only if the browser supports SIMD.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

let worker = null;
let original = null; // { rgb, width, height, name, size }
let pictures = {}; // by label: { rgb, bytes }, rgb channel after channel
let newest = 0; // number of the user's latest request; answers to older ones are dropped

/** Show a line below the controls. */
function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
  if (isError) element("progress").hidden = true;
}

/** Show that something is in progress; the worker then reports how far it is. */
function wait(text) {
  say(text);
  element("progress").hidden = false;
  element("progress").removeAttribute("value");
}

/** Send a request to the worker; resolves to its result, or rejects with an Error whose message is a sentence. */
function request(what, values = {}, transfer = []) {
  return new Promise((resolve, reject) => {
    const id = (request.last = (request.last ?? 0) + 1);
    request.waiting.set(id, { resolve, reject });
    worker.postMessage({ id, what, ...values }, transfer);
  });
}
request.waiting = new Map();

/** Start the worker, and pass its answers to the requests that wait for them. */
function startWorker() {
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { id, result, error, progress } }) => {
    if (progress !== undefined) {
      element("progress").value = progress;
      return;
    }
    const { resolve, reject } = request.waiting.get(id);
    request.waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  worker.onerror = (event) => {
    event.preventDefault?.();
    say("The codec does not start in this browser; try a newer browser.", true);
  };
}

// --- pictures ------------------------------------------------------------------------------------------------------

/** Convert RGBA, pixel after pixel, to RGB, channel after channel. */
function planes(rgba) {
  const count = rgba.length / 4;
  const rgb = new Uint8Array(3 * count);
  for (let c = 0; c < 3; c++) for (let index = 0; index < count; index++) rgb[c * count + index] = rgba[4 * index + c];
  return rgb;
}

/** Convert RGB, channel after channel, to ImageData. */
function imageData(rgb, width, height) {
  const count = width * height;
  const data = new ImageData(width, height);
  data.data.fill(255);
  for (let c = 0; c < 3; c++) for (let index = 0; index < count; index++) data.data[4 * index + c] = rgb[c * count + index];
  return data;
}

/** Create a canvas with these pixels. */
function canvasOf(rgb, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(imageData(rgb, width, height), 0, 0);
  return canvas;
}

/** Resolves to the pixels of an image file, in sRGB on white: { rgb, width, height }. */
async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Error(`The picture has ${width} × ${height} pixels, too many for this page; use the jahp command.`);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // below transparent pixels
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return { rgb: planes(context.getImageData(0, 0, width, height).data), width, height };
}

/** Compute the PSNR in dB between two arrays of samples from 0 to 255. */
function psnr(a, b) {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += (a[index] - b[index]) ** 2;
  return 10 * Math.log10((255 ** 2 * a.length) / sum);
}

/** Check whether R = G = B everywhere. */
function isGray({ rgb, width, height }) {
  const count = width * height;
  for (let index = 0; index < count; index++) {
    if (rgb[index] !== rgb[count + index] || rgb[index] !== rgb[2 * count + index]) return false;
  }
  return true;
}

const toBlob = (canvas, type, quality) => new Promise((resolve) => canvas.toBlob(resolve, type, quality));

/** Encode with the browser at the highest quality whose file has at most `size` bytes, otherwise at the lowest quality. */
async function classical(type, size) {
  const canvas = canvasOf(original.rgb, original.width, original.height);
  let best = await toBlob(canvas, type, 0);
  if (best === null || best.type !== type) return null; // the browser does not write this format
  let [low, high] = [0, 1];
  for (let step = 0; step < QUALITY_STEPS && best.size <= size; step++) {
    const middle = (low + high) / 2;
    const blob = await toBlob(canvas, type, middle);
    if (blob.size <= size) [low, best] = [middle, blob];
    else high = middle;
  }
  return { rgb: (await pixelsOf(best)).rgb, bytes: best.size };
}

// --- the viewer ----------------------------------------------------------------------------------------------------

/** Draw the two chosen pictures, one on top of the other. */
function draw() {
  const { width, height } = original;
  for (const [canvas, choice] of [["over", "left"], ["under", "right"]]) {
    const picture = pictures[element(choice).value];
    if (picture === undefined) continue;
    [element(canvas).width, element(canvas).height] = [width, height];
    element(canvas).getContext("2d").putImageData(imageData(picture.rgb, width, height), 0, 0);
  }
}

/** Show the part of the upper picture that the slider sets. */
function move() {
  const share = element("split").value / 10;
  element("over").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  element("divider").style.left = `${share}%`;
}

/** Offer all pictures in a list, and keep the current choice if that picture still exists. */
function fill(id, fallback) {
  const select = element(id);
  const before = select.value;
  select.replaceChildren(...Object.keys(pictures).map((label) => new Option(label)));
  select.value = pictures[before] ? before : fallback;
}

/** Show the viewer, starting with these two pictures, and the table of sizes. */
function show(left, right) {
  const { width, height } = original;
  fill("left", left);
  fill("right", right);
  element("rows").replaceChildren(
    ...Object.entries(pictures).map(([label, { rgb, bytes }]) => {
      const row = document.createElement("tr");
      const isOriginal = label === "original";
      const loss = pictures.original && !isOriginal ? `${psnr(pictures.original.rgb, rgb).toFixed(2)} dB` : "–";
      const rate = bytes === null ? "–" : ((8 * bytes) / (width * height)).toFixed(3);
      for (const text of [label, bytes === null ? "–" : bytes.toLocaleString("en"), rate, loss]) row.insertCell().textContent = text;
      return row;
    }),
  );
  element("viewer").hidden = false;
  for (const id of ["split", "divider"]) element(id).hidden = Object.keys(pictures).length === 1;
  draw();
  move();
}

/** Offer a file for download. */
function offer(id, blob, name) {
  const link = element(id);
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.hidden = false;
}

// --- files ---------------------------------------------------------------------------------------------------------

/** Run an action of the user; show its error, unless the user has asked for something else since. */
async function attempt(work) {
  const mine = ++newest;
  try {
    await work(() => mine === newest);
  } catch (error) {
    if (mine === newest) say(error.message, true);
  } finally {
    if (mine === newest) element("progress").hidden = true;
  }
}

/** Open a .jahp file or a photograph. */
function openFile(file) {
  return attempt((isNewest) => {
    if (file.size > MAX_FILE_BYTES) throw new Error(`${file.name} has ${file.size} bytes, too many for this page; use the jahp command.`);
    return /\.jahp$/i.test(file.name) ? openJahp(file, isNewest) : openPhotograph(file, isNewest);
  });
}

/** Decode a .jahp file and show it. */
async function openJahp(file, isNewest) {
  wait(`Decoding ${file.name} …`);
  const data = new Uint8Array(await file.arrayBuffer());
  const { header, rgb, seconds } = await request("decode", { data });
  const { width, height, profile } = header;
  let png = await toBlob(canvasOf(rgb, width, height), "image/png");
  if (profile !== null) png = await withProfile(png, profile);
  const shown = profile === null ? rgb : (await pixelsOf(png)).rgb; // the browser converts it to sRGB
  if (!isNewest()) return;
  original = { rgb: shown, width, height, name: file.name.replace(/\.jahp$/i, "") };
  pictures = { decoded: { rgb: shown, bytes: data.length } };
  for (const id of ["controls", "choices", "saveFile"]) element(id).hidden = true;
  show("decoded", "decoded");
  offer("savePicture", png, `${original.name}.png`);
  const colors = profile === null ? "" : " The file has a color profile, which the PNG keeps; shown here in sRGB.";
  element("facts").textContent = `${width} × ${height} pixels, model ${header.fingerprint}.${colors}`;
  say(`Decoded in ${seconds.toFixed(1)} s.`);
}

/** Read a photograph, let the worker analyze it, and encode it. */
async function openPhotograph(file, isNewest) {
  wait(`Reading ${file.name} …`);
  let pixels;
  try {
    pixels = await pixelsOf(file);
  } catch (error) {
    if (/too many/.test(error.message)) throw error;
    throw new Error(`${file.name} is not a picture that this browser can read; convert it to PNG or JPEG.`);
  }
  if (!isNewest()) return;
  original = { ...pixels, name: file.name.replace(/\.[^.]*$/, ""), size: file.size };
  element("controls").hidden = true; // until it is analyzed
  wait("Analyzing …");
  const { seconds } = await request("analyze", { ...pixels, isGray: isGray(pixels) });
  if (isNewest()) await encode(isNewest, seconds);
}

/** Encode the picture that the worker has analyzed; `analysis` is how many seconds that took, 0 if it was done before. */
async function encode(isNewest, analysis = 0) {
  wait("Compressing …");
  const { data, header, rgb, seconds } = await request("encode", { quality: Number(element("quality").value) });
  if (!isNewest()) return;
  const { width, height } = header;
  const found = { original: { rgb: original.rgb, bytes: original.size }, jahp: { rgb, bytes: data.length } };
  const larger = [];
  for (const [label, type] of [["JPEG", "image/jpeg"], ["WebP", "image/webp"]]) {
    const picture = await classical(type, data.length);
    if (!isNewest()) return;
    if (picture !== null) found[label] = picture;
    if (picture?.bytes > data.length) larger.push(label);
  }
  const png = await toBlob(canvasOf(rgb, width, height), "image/png");
  if (!isNewest()) return;
  pictures = found;
  element("controls").hidden = false;
  element("choices").hidden = false;
  show("jahp", "JPEG");
  offer("saveFile", new Blob([data]), `${original.name}.jahp`);
  offer("savePicture", png, `${original.name}.png`);
  const note = larger.length ? ` ${larger.join(" and ")} cannot be smaller here.` : "";
  element("facts").textContent = `${width} × ${height} pixels, in sRGB. JPEG and WebP are this browser's own, with no more bytes than the .jahp file if possible.${note}`;
  say(`Compressed in ${(analysis + seconds).toFixed(1)} s.`);
}

// --- start ---------------------------------------------------------------------------------------------------------

function listen() {
  const drop = element("drop");
  element("file").addEventListener("change", ({ target }) => {
    if (target.files.length) openFile(target.files[0]);
    target.value = "";
  });
  for (const kind of ["dragover", "dragenter"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) openFile(file);
  });
  element("quality").addEventListener("input", ({ target }) => (element("qualityValue").textContent = target.value));
  element("quality").addEventListener("change", () => attempt(encode));
  for (const id of ["left", "right"]) element(id).addEventListener("change", draw);
  element("split").addEventListener("input", move);
}

/** Load the model, then accept files. */
async function start() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    say("This browser lacks WebAssembly SIMD, which the codec needs; try a newer browser.", true);
    return;
  }
  startWorker();
  say("Loading the model …");
  try {
    const { numLevels, numThreads } = await request("load");
    element("quality").disabled = numLevels === 1;
    listen();
    element("progress").hidden = true;
    say(`Ready, on ${numThreads} thread${numThreads > 1 ? "s" : ""}.`);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    say(error.message, true);
    document.documentElement.dataset.ready = "failed";
  }
  if (!("serviceWorker" in navigator)) return;
  navigator.serviceWorker.register(new URL("offline.js", import.meta.url)).catch(() => {});
  navigator.serviceWorker.ready.then(() => (element("offline").hidden = false));
}

start();
