/** What the Gaussian process needs of linear algebra, in float64: Cholesky, and the root of a symmetric matrix. */

/** A matrix [rows, columns], row by row. */
export interface Matrix {
  readonly data: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

export function matrix(rows: number, columns: number): Matrix {
  return { data: new Float64Array(rows * columns), rows, columns };
}

/** The lower factor L of a positive definite matrix S = L L' (in place of S; above the diagonal is zero). */
export function cholesky({ data, rows: n }: Matrix): Matrix {
  for (let j = 0; j < n; j++) {
    for (let i = j; i < n; i++) {
      let total = data[i * n + j];
      const [a, b] = [i * n, j * n];
      for (let k = 0; k < j; k++) total -= data[a + k] * data[b + k];
      data[i * n + j] = i === j ? Math.sqrt(total) : total / data[j * n + j];
    }
    for (let k = j + 1; k < n; k++) data[j * n + k] = 0;
  }
  return { data, rows: n, columns: n };
}

/** L^-1 x for a lower factor, in place of x: of one vector [n]. */
export function solveLower({ data, rows: n }: Matrix, x: Float64Array): Float64Array {
  for (let i = 0; i < n; i++) {
    let total = x[i];
    for (let k = 0; k < i; k++) total -= data[i * n + k] * x[k];
    x[i] = total / data[i * n + i];
  }
  return x;
}

/** L'^-1 x for a lower factor, in place of x. */
export function solveUpper({ data, rows: n }: Matrix, x: Float64Array): Float64Array {
  for (let i = n - 1; i >= 0; i--) {
    x[i] /= data[i * n + i];
    for (let k = 0; k < i; k++) x[k] -= data[i * n + k] * x[i];
  }
  return x;
}

/** The inverse of a lower factor, which is lower, too. */
export function invertLower({ data, rows: n }: Matrix): Matrix {
  const inverse = matrix(n, n);
  for (let j = 0; j < n; j++) {
    inverse.data[j * n + j] = 1 / data[j * n + j];
    for (let i = j + 1; i < n; i++) {
      let total = 0;
      for (let k = j; k < i; k++) total -= data[i * n + k] * inverse.data[k * n + j];
      inverse.data[i * n + j] = total / data[i * n + i];
    }
  }
  return inverse;
}

const MOST_SWEEPS = 60;

/**
 * Eigenvalues and vectors of a symmetric matrix: Jacobi's rotations (Golub and Van Loan, "Matrix Computations", 8.5).
 *
 * @returns values [n], in no order, and vectors, a column each
 */
export function symmetricEigen({ data, rows: n }: Matrix): { values: Float64Array; vectors: Matrix } {
  const a = data.slice();
  const vectors = matrix(n, n);
  for (let i = 0; i < n; i++) vectors.data[i * n + i] = 1;
  const v = vectors.data;
  const turn = (m: Float64Array, p: number, q: number, cosine: number, sine: number): void => {
    const [x, y] = [m[p], m[q]];
    m[p] = cosine * x - sine * y;
    m[q] = sine * x + cosine * y;
  };
  let scale = 0;
  for (const value of a) scale += value * value;
  for (let sweep = 0; sweep < MOST_SWEEPS; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += a[p * n + q] ** 2;
    if (off <= 1e-26 * scale) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const between = a[p * n + q];
        if (between === 0) continue;
        const ratio = (a[q * n + q] - a[p * n + p]) / (2 * between);
        const tangent = (ratio >= 0 ? 1 : -1) / (Math.abs(ratio) + Math.hypot(1, ratio));
        const cosine = 1 / Math.hypot(1, tangent);
        const sine = tangent * cosine;
        for (let k = 0; k < n; k++) turn(a, k * n + p, k * n + q, cosine, sine);
        for (let k = 0; k < n; k++) turn(a, p * n + k, q * n + k, cosine, sine);
        for (let k = 0; k < n; k++) turn(v, k * n + p, k * n + q, cosine, sine);
      }
    }
  }
  return { values: Float64Array.from({ length: n }, (_, i) => a[i * n + i]), vectors };
}

/** K^-1 x = M' M x, where M = L^-1. */
export function solved(root: Matrix, x: Float64Array): Float64Array {
  const n = root.rows;
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let total = 0;
    for (let k = 0; k <= i; k++) total += root.data[i * n + k] * x[k];
    for (let k = 0; k <= i; k++) out[k] += root.data[i * n + k] * total;
  }
  return out;
}

/** x' K^-1 x = |M x|^2. */
export function squaredLength(root: Matrix, x: Float64Array): number {
  const n = root.rows;
  const { data } = root;
  let length = 0;
  for (let i = 0; i < n; i++) {
    let total = 0;
    for (let k = 0, at = i * n; k <= i; k++, at++) total += data[at] * x[k];
    length += total * total;
  }
  return length;
}

/** A B. */
export function product(a: Matrix, b: Matrix): Matrix {
  const out = matrix(a.rows, b.columns);
  for (let i = 0; i < a.rows; i++) {
    for (let k = 0; k < a.columns; k++) {
      const factor = a.data[i * a.columns + k];
      if (factor === 0) continue;
      for (let j = 0, at = i * b.columns, from = k * b.columns; j < b.columns; j++, at++, from++) {
        out.data[at] += factor * b.data[from];
      }
    }
  }
  return out;
}

/** A'. */
export function transposed({ data, rows, columns }: Matrix): Matrix {
  const out = matrix(columns, rows);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out.data[j * rows + i] = data[i * columns + j];
  return out;
}

/** Some rows of a matrix, in this order. */
export function picked({ data, columns }: Matrix, places: readonly number[]): Matrix {
  const out = matrix(places.length, columns);
  for (const [row, place] of places.entries()) {
    out.data.set(data.subarray(place * columns, (place + 1) * columns), row * columns);
  }
  return out;
}

/** S += factor x x'. */
export function addOuter({ data, columns }: Matrix, x: Float64Array, factor: number): void {
  for (let i = 0; i < columns; i++) for (let j = 0; j < columns; j++) data[i * columns + j] += factor * x[i] * x[j];
}

/** The length of a row. */
export function norm({ data, columns }: Matrix, row: number): number {
  let total = 0;
  for (let i = row * columns; i < (row + 1) * columns; i++) total += data[i] ** 2;
  return Math.sqrt(total);
}

export function dot(a: Float64Array, b: Float64Array): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

export function sum(values: Float64Array): number {
  return values.reduce((a, b) => a + b, 0);
}
