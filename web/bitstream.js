// Reads and writes .jahp files (docs/file-format.md): a header, which is checked before it is used, and a payload.

/** Error that a file or a model cannot be used; the message is a sentence for the user. */
export class FileError extends Error {}

const MAGIC = [0x6a, 0x61, 0x68, 0x70];
const MAX_PROFILE = 2 ** 20;
export const LEVEL_STEPS = 256;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** Compute zlib's CRC-32 over several arrays of bytes. */
export function crc32(parts) {
  let crc = 0xffffffff;
  for (const part of parts) for (const byte of part) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Encode a whole number as bytes: 7 bits in each, lowest first; the top bit is set on all bytes but the last. */
function varint(value) {
  const bytes = [];
  while (value >= 128) {
    bytes.push((value % 128) + 128);
    value = Math.floor(value / 128);
  }
  return [...bytes, value];
}

/** Position in a file that moves forward as numbers are read. */
class Cursor {
  constructor(data, position) {
    this.data = data;
    this.position = position;
  }

  /** Read the next number; throws FileError if the header ends or the number is not in its shortest form. */
  varint() {
    let value = 0;
    for (let place = 0; place < 5; place++) {
      if (this.position >= this.data.length) throw new FileError("The file is cut short: it ends within its header.");
      const byte = this.data[this.position++];
      value += (byte & 127) * 128 ** place;
      if (byte < 128) {
        if (byte === 0 && place > 0) break;
        return value;
      }
    }
    throw new FileError("The header is damaged: a number is not in its shortest form.");
  }
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Read the header and the payload of a file; throws FileError if the file is damaged or too large. */
export function unpack(data, maxPixels) {
  if (!MAGIC.every((byte, index) => data[index] === byte)) throw new FileError("This is not a .jahp file.");
  if (data.length < 13) throw new FileError("The file is cut short: it ends within its header.");
  const version = data[4];
  if (version !== 1 && version !== 2) throw new FileError(`The file has version ${version}; this page reads 1 and 2.`);
  const fingerprint = hex(data.subarray(5, 13));
  const cursor = new Cursor(data, 13);
  const flags = version === 2 ? cursor.varint() : 0;
  const level = flags & 1 ? cursor.varint() : null;
  const [width, height, zigzag, span] = [0, 0, 0, 0].map(() => cursor.varint());
  const [profileLength, length] = [cursor.varint(), cursor.varint()];
  const start = cursor.position;
  const rest = data.subarray(start + 4);
  if (data.length < start + 4 || rest.length < profileLength + length) throw new FileError("The file is cut short.");
  if (rest.length > profileLength + length) throw new FileError("The file has extra bytes after its payload.");
  const stated = new DataView(data.buffer, data.byteOffset + start, 4).getUint32(0, true);
  if (crc32([data.subarray(0, start), rest]) !== stated) {
    throw new FileError("The file is damaged: its checksum does not match. Fetch it again.");
  }
  const lowest = zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2;
  const isSide = (side) => side >= 1 && side <= 65535;
  const isInRange =
    isSide(width) && isSide(height) && length % 4 === 0 && profileLength <= MAX_PROFILE && (level ?? 0) <= 65535 &&
    flags <= 3 && (version === 1 || flags > 0) && lowest >= -32768 && lowest + span <= 32767;
  if (!isInRange) throw new FileError("The header has values out of the format's range; an incompatible program made the file.");
  if (width * height > maxPixels) {
    throw new FileError(`The file holds ${width} × ${height} pixels, too many for this page; use the jahp command.`);
  }
  const payload = rest.slice(profileLength);
  return {
    fingerprint, width, height, level, lowest, highest: lowest + span, isGray: (flags & 2) !== 0,
    profile: profileLength > 0 ? rest.slice(0, profileLength) : null, payload,
  };
}

/** Write a file without a color profile. */
export function pack(header, payload) {
  const flags = (header.level === null ? 0 : 1) | (header.isGray ? 2 : 0);
  const fingerprint = header.fingerprint.match(/../g).map((byte) => parseInt(byte, 16));
  const head = [...MAGIC, flags ? 2 : 1, ...fingerprint];
  if (flags) head.push(...varint(flags));
  if (header.level !== null) head.push(...varint(header.level));
  const { lowest, highest } = header;
  head.push(...varint(header.width), ...varint(header.height), ...varint(lowest >= 0 ? 2 * lowest : -2 * lowest - 1));
  head.push(...varint(highest - lowest), ...varint(0), ...varint(payload.length));
  const crc = crc32([head, payload]);
  const checksum = [0, 8, 16, 24].map((shift) => (crc >>> shift) & 255);
  return Uint8Array.from([...head, ...checksum, ...payload]);
}
