/** How the page is built and served: the shipped bundle beside it, and the headers that it needs. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const SHIPPED_BUNDLE = fileURLToPath(new URL("../../models/shapes.ortcam", import.meta.url));
const VERSION = /__version__ = "(.+)"/.exec(readFileSync(new URL("../ortcam/_version.py", import.meta.url), "utf8"))?.[1];

// Nothing may be fetched from, sent to or loaded from another origin: the picture cannot leave.
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

/** Puts the shipped bundle beside the page, as `shapes.ortcam/`. */
function shippedBundle(): Plugin {
  return {
    name: "ortcam-shipped-bundle",
    generateBundle() {
      for (const name of readdirSync(SHIPPED_BUNDLE)) {
        const source = readFileSync(`${SHIPPED_BUNDLE}/${name}`);
        this.emitFile({ type: "asset", fileName: `shapes.ortcam/${name}`, source });
      }
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

export default defineConfig({
  base: "./",
  appType: "mpa", // a file that is not there is an error, not the page once more
  plugins: [shippedBundle(), contentSecurityPolicy()],
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "production"] },
  define: { __VERSION__: JSON.stringify(VERSION) },
  worker: { format: "es" },
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1024,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  preview: { host: "127.0.0.1", headers: HEADERS },
});
