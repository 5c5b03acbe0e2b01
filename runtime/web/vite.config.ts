/**
 * How the page is built and served.
 *
 * `vite build` makes the page for a server of one's own, with the shipped bundle beside it, in `dist`. Whatever else
 * lies there, say bundles, stays. `vite build --mode shipped` makes the page that comes with ortcam and that
 * `ortcam web` serves: without a bundle, without WebGPU, ONNX Runtime compressed.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const SHIPPED_BUNDLE = here("../../models/shapes.ortcam");
const SHIPPED_SAMPLES = here("../../models/shapes/samples");
const VERSION = /__version__ = "(.+)"/.exec(readFileSync(here("../ortcam/_version.py"), "utf8"))?.[1];
const COMPRESSED = ".wasm";

// Nothing may be fetched from, sent to or loaded from another origin: the image cannot leave.
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "connect-src 'self'",
  "img-src 'self' blob:",
  "style-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

// The policy once more as a header, since workers take theirs from the header of their script; the next two isolate the
// page, without which browsers allow no shared memory and so no threads.
const HEADERS = {
  "Content-Security-Policy": `${CONTENT_SECURITY_POLICY}; frame-ancestors 'none'`,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

/** Puts the shipped bundle and its samples beside the page, and lists the bundles that lie there in `site.json`. */
function shippedBundle(folder: string): Plugin {
  return {
    name: "ortcam-shipped-bundle",
    generateBundle() {
      const copy = (from: string, to: string): string[] =>
        readdirSync(from).map((name) => {
          this.emitFile({ type: "asset", fileName: `${to}/${name}`, source: readFileSync(`${from}/${name}`) });
          return `${to}/${name}`;
        });
      copy(SHIPPED_BUNDLE, "shapes.ortcam");
      const samples = copy(SHIPPED_SAMPLES, "samples/shapes");
      const others = existsSync(folder) ? readdirSync(folder) : [];
      const names = ["shapes.ortcam", ...others.filter((name) => existsSync(`${folder}/${name}/bundle.json`)).sort()];
      const bundles = [...new Set(names)].map((name, i) => ({
        name: name.replace(/\.ortcam$/, ""),
        address: `${encodeURIComponent(name)}/`,
        samples: i === 0 ? samples : readdirSync(here("public/samples")).filter((file) => /\.jpg$/.test(file)).map((file) => `samples/${file}`),
      }));
      const source = JSON.stringify({ ortcam: VERSION, bundles });
      this.emitFile({ type: "asset", fileName: "site.json", source });
    },
  };
}

/** Writes the policy into the page, for hosts that set no headers, and all headers into `_headers`, for others. */
function contentSecurityPolicy(): Plugin {
  return {
    name: "ortcam-content-security-policy",
    transformIndexHtml: () => [
      {
        tag: "meta",
        attrs: { "http-equiv": "Content-Security-Policy", content: CONTENT_SECURITY_POLICY },
        injectTo: "head-prepend",
      },
    ],
    generateBundle() {
      const lines = Object.entries(HEADERS).map(([name, value]) => `  ${name}: ${value}\n`);
      this.emitFile({ type: "asset", fileName: "_headers", source: `/*\n${lines.join("")}` });
    },
  };
}

/** Removes what an earlier build named after its content; what somebody laid beside the page stays. */
function clearAssets(folder: string): Plugin {
  return { name: "ortcam-clear-assets", buildStart: () => rmSync(`${folder}/assets`, { recursive: true, force: true }) };
}

/** Compresses ONNX Runtime where it was written, and records from which sources the page was built. */
function asShipped(): Plugin {
  return {
    name: "ortcam-as-shipped",
    writeBundle({ dir = "" }) {
      for (const name of readdirSync(`${dir}/assets`).filter((file) => file.endsWith(COMPRESSED))) {
        writeFileSync(`${dir}/assets/${name}.gz`, gzipSync(readFileSync(`${dir}/assets/${name}`), { level: 9 }));
        unlinkSync(`${dir}/assets/${name}`);
      }
      writeFileSync(`${dir}/sources.json`, `${JSON.stringify(sources(), null, 1)}\n`);
    },
  };
}

/** SHA-256 of every file that the page is made of. */
function sources(): Record<string, string> {
  const folders = ["src", "public"].flatMap((folder) =>
    readdirSync(here(folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath}/${entry.name}`.slice(here(".").length).replace(/\\/g, "/")),
  );
  const files = [...folders, "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];
  const digest = (file: string): string => createHash("sha256").update(readFileSync(here(file))).digest("hex");
  return Object.fromEntries(files.sort().map((file) => [file, digest(file)]));
}

export default defineConfig(({ mode }) => {
  const shipped = mode === "shipped";
  const folder = process.env["ORTCAM_PAGE"] ?? here(shipped ? "../ortcam/web/page" : "dist");
  return {
    base: "./",
    appType: "mpa", // a file that is not there is an error, not the page once more
    plugins: [
      contentSecurityPolicy(),
      ...(shipped ? [asShipped()] : [clearAssets(folder), shippedBundle(folder)]),
    ],
    resolve: { conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "production"] },
    define: { __WEBGPU__: JSON.stringify(!shipped) },
    worker: { format: "es" },
    build: {
      outDir: folder,
      emptyOutDir: shipped,
      target: "es2022",
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      chunkSizeWarningLimit: 1024,
      rolldownOptions: { checks: { pluginTimings: false } },
    },
    preview: { host: "127.0.0.1", headers: HEADERS },
  };
});
