// Takes out of package-lock.json whom to fund, since it names no address of any host; `npm run lock` runs it.

import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf-8"), (key, value) => (key === "funding" ? undefined : value));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
