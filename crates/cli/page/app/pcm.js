/** Samples as a WebSocket carries them: G.711 mu-law or 16-bit PCM. Pure functions over sample arrays (full scale 1). */

/** ITU-T G.711, table 2: the bias that makes every segment begin at a power of two, and the loudest value there is. */
const BIAS = 132;
const CLIP = 32_635;

/**
 * @typedef {object} Codec
 * @property {string} title for people
 * @property {number} bytes a sample
 * @property {(samples: Float32Array) => Uint8Array} encode
 * @property {(bytes: ArrayBuffer) => Float32Array} decode
 */

/** By the names of the protocol. @type {Record<string, Codec>} */
export const CODECS = {
  pcm16: {
    title: "16-bit PCM",
    bytes: 2,
    encode(samples) {
      const bytes = new Uint8Array(samples.length * 2);
      const view = new DataView(bytes.buffer);
      samples.forEach((sample, i) => view.setInt16(i * 2, integer(sample), true));
      return bytes;
    },
    decode(bytes) {
      const view = new DataView(bytes);
      return Float32Array.from({ length: bytes.byteLength >> 1 }, (_, i) => view.getInt16(i * 2, true) / 32_768);
    },
  },
  mulaw: {
    title: "mu-law",
    bytes: 1,
    encode: (samples) => Uint8Array.from(samples, (sample) => toMuLaw(integer(sample))),
    decode: (bytes) => Float32Array.from(new Uint8Array(bytes), (byte) => FROM_MU_LAW[byte]),
  },
};

const integer = (sample) => Math.max(-32_768, Math.min(32_767, Math.round(sample * 32_768)));

/** @param {number} sample 16 bits, signed */
function toMuLaw(sample) {
  const sign = sample < 0 ? 0x80 : 0;
  const biased = Math.min(Math.abs(sample), CLIP) + BIAS;
  const exponent = 31 - Math.clz32(biased) - 7;
  const mantissa = (biased >> (exponent + 3)) & 0x0f;
  return ~(sign | (exponent << 4) | mantissa) & 0xff;
}

const FROM_MU_LAW = Float32Array.from({ length: 256 }, (_, byte) => {
  const bits = ~byte & 0xff;
  const exponent = (bits >> 4) & 7;
  const magnitude = ((((bits & 0x0f) << 3) + BIAS) << exponent) - BIAS;
  return (bits & 0x80 ? -magnitude : magnitude) / 32_768;
});
