// A map over the photograph, with the look that Python gives it: turbo, and the more opaque the higher the map.

const BEGIN = 0.1; // of the map: nothing is drawn below
const FULL = 0.9; // from here on it is at its most opaque
const ALPHA = 0.65; // which is this
const DIM = 0.6; // brightness of what the model did not see
const GREY = 0.5; // how much of its colour is taken away

// 256 colours, RGB.
const TURBO = Buffer.from(
  "MBI7MhVDMxhKNBtRNR5YNiFfNyRmOCdtOSpzOi15Oy+APDKGPTWLPjiRPzuXPz6cQECiQUOnQUasQkmxQku1Q066RFG/RFTDRFbHRVnLRVzP" +
  "RV7TRmHWRmTaRmbdRmngRmvjR27mR3HpR3PrR3buR3jwR3vyRn30RoD2RoL4RoX6Rof7RYr8RYz9RI/+Q5H+QpT/QZb/QJn/Ppv+PZ7+O6D9" +
  "OqP8OKX7N6j6Nav4M633Ma/1L7L0LrTyLLfwKrnuKLzrJ77pJcDnI8PkIsXiIMffH8ndHsvaHM3YG9DVGtLSGtTQGdXNGNfKGNnIGNvFGN3C" +
  "GN7AGOC9GeK7GeO5GuS2HOa0HeeyH+mvIOqsIuuqJeynJ+6kKu+hLPCeL/GbMvKYNfOUOPSRPPWOP/aKQ/eHRviESviATvl9Uvp6Vfp2Wftz" +
  "XfxvYfxsZf1paf1mbf5icf5fdf5cef5Zff9WgP9ThP9RiP9Oi/9Lj/9Jkv9Hlv5Emf5CnP5An/0/of09pPw8p/w6qfs5rPs4r/o3sfk2tPg2" +
  "t/c1ufY1vPU0vvQ0wfM0w/E0xvA0yO80y+00zew00Oo00uk11Oc11+U12eQ22+I23eA339834d0349s45dk459c56dU569M57NE67s867806" +
  "8cs68sk69Mc69cU69sM698E6+L45+bw5+ro5+7g4+7Y3/LM2/LE2/a41/aw0/qkz/qcy/qQx/qEw/p4v/pst/pks/pYr/pMq/pAp/Y0n/Yom" +
  "/Icl/IQj+4Ei+34h+nsf+Xge+XUd+HIc928a9mwZ9WkY9GYX82MV8mAU8V0T8FsS71gR7VUQ7FMP61AO6k4N6EsM50kM5UcL5EUK4kMK4UEJ" +
  "3z8I3T0I3DsH2jkH2DcG1jUG1DMF0jEF0C8Fzi0EzCsEyioEyCgDxSYDwyUDwSMCviECvCACuR4Ctx0CtBsBshoBrxgBrBcBqRYBpxQBpBMB" +
  "oRIBnhABmw8BmA4BlQ0BkgsBjgoBiwkCiAgChQcCgQYCfgUCegQD",
  "base64",
);

/**
 * Where the model's input lies in a photograph: both are resized, then a window is cropped.
 *
 * @param {object} preprocessing the metadata "ortcam.preprocessing" of an explainer
 */
export function cropGeometry({ height, width, resize, keep_aspect, crop_rounding }, rows, columns) {
  let resized = [height, width];
  if (resize !== null && !keep_aspect) resized = [resize, resize];
  else if (resize !== null && rows <= columns) resized = [resize, Math.trunc((resize * columns) / rows)];
  else if (resize !== null) resized = [Math.trunc((resize * rows) / columns), resize];
  const [top, left] = resized.map((side, axis) => cropOffset(side, [height, width][axis], crop_rounding === "down"));
  return {
    y: placesInCrop(rows, resized[0], top, height),
    x: placesInCrop(columns, resized[1], left, width),
  };
}

function cropOffset(side, crop, down) {
  if (side < crop) return -Math.floor((crop - side) / 2);
  const half = Math.floor((side - crop) / 2);
  return half + ((side - crop) % 2 && !down && half % 2 ? 1 : 0); // halves go to the even side
}

/** Centres of a photograph's pixels as fractions of the crop's side, and which of them lie in the crop. */
function placesInCrop(size, resized, offset, crop) {
  const at = Float64Array.from({ length: size }, (_, index) => (((index + 0.5) * resized) / size - offset) / crop);
  const first = at.findIndex((value) => value >= 0);
  const last = at.findLastIndex((value) => value < 1);
  return { at, first: Math.max(first, 0), end: last + 1 };
}

/**
 * The overlay, RGB bytes of the photograph's size.
 *
 * @param {{data: Uint8Array, height: number, width: number}} photograph RGB
 * @param {{data: Float32Array, height: number, width: number}} map in [0, 1], over the crop
 * @param {object} geometry from `cropGeometry`
 * @param {number[]} cells rows and columns of the layer that the map comes from
 */
export function drawOverlay(photograph, map, geometry, cells) {
  const soft = smoothed(map, map.height / cells[0] / 6, map.width / cells[1] / 6);
  const { data, height, width } = photograph;
  const { x, y } = geometry;
  const drawn = new Uint8Array(data.length);
  const columns = Array.from(x.at, (at) => neighbours(at, map.width));
  for (let row = 0; row < height; row++) {
    const [above, below, down] = neighbours(y.at[row], map.height);
    for (let column = 0; column < width; column++) {
      const place = 3 * (row * width + column);
      const pixel = data.subarray(place, place + 3);
      if (row < y.first || row >= y.end || column < x.first || column >= x.end) {
        const grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        for (let i = 0; i < 3; i++) drawn[place + i] = Math.round(DIM * ((1 - GREY) * pixel[i] + GREY * grey));
        continue;
      }
      const [left, right, across] = columns[column];
      const value = (at) => soft[at * map.width + left] * (1 - across) + soft[at * map.width + right] * across;
      const saliency = value(above) * (1 - down) + value(below) * down;
      const t = Math.min(Math.max((saliency - BEGIN) / (FULL - BEGIN), 0), 1);
      const opacity = ALPHA * t * t * (3 - 2 * t);
      const colour = 3 * Math.round(255 * Math.min(Math.max(saliency, 0), 1));
      for (let i = 0; i < 3; i++) drawn[place + i] = Math.round((1 - opacity) * pixel[i] + opacity * TURBO[colour + i]);
    }
  }
  frame(drawn, height, width, geometry);
  return drawn;
}

/** The cells on both sides of a place, and how far it is from the first towards the second. */
function neighbours(at, cells) {
  const position = Math.min(Math.max(at * cells - 0.5, 0), cells - 1);
  const low = Math.min(Math.floor(position), Math.max(cells - 2, 0));
  return [low, Math.min(low + 1, cells - 1), position - low];
}

/** The map under a Gaussian, which takes the creases of bilinear interpolation away, scaled to its own maximum. */
function smoothed({ data, height, width }, sigmaY, sigmaX) {
  const across = blurred(data, height, width, kernel(sigmaX), (row, column) => row * width + column);
  const soft = blurred(across, width, height, kernel(sigmaY), (column, row) => row * width + column);
  const [highest, peak] = [data, soft].map((values) => values.reduce((most, value) => Math.max(most, value), 0));
  return peak > 0 ? soft.map((value) => Math.min((value * highest) / peak, 1)) : soft;
}

function kernel(sigma) {
  const reach = Math.ceil(4 * sigma);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, index) => Math.exp(-((index - reach) ** 2) / (2 * sigma ** 2)));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/** Lines of values under a kernel; `place` says where the n-th value of a line lies. The edge goes on beyond it. */
function blurred(values, lines, length, weights, place) {
  const out = new Float32Array(values.length);
  const reach = (weights.length - 1) / 2;
  for (let line = 0; line < lines; line++) {
    for (let n = 0; n < length; n++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) {
        sum += weights[k] * values[place(line, Math.min(Math.max(n + k - reach, 0), length - 1))];
      }
      out[place(line, n)] = sum;
    }
  }
  return out;
}

/** A thin white line with a dark edge around what the model saw. */
function frame(pixels, height, width, { x, y }) {
  const line = Math.max(1, roundHalfToEven(Math.min(height, width) / 500));
  for (let row = Math.max(0, y.first - 2 * line); row < Math.min(height, y.end + 2 * line); row++) {
    for (let column = Math.max(0, x.first - 2 * line); column < Math.min(width, x.end + 2 * line); column++) {
      const away = Math.max(y.first - row, row - y.end + 1, x.first - column, column - x.end + 1);
      if (away > 0) pixels.fill(away > line ? 32 : 255, 3 * (row * width + column), 3 * (row * width + column) + 3);
    }
  }
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
