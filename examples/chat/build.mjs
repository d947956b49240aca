// Bundles the page into dist/, ready to be served by any server of static files.
import { cp, rm } from "node:fs/promises";
import { build } from "esbuild";

const dist = new URL("dist/", import.meta.url);

await rm(dist, { recursive: true, force: true });
await build({
  absWorkingDir: import.meta.dirname,
  entryPoints: ["src/main.tsx", "src/style.css"],
  outdir: "dist",
  bundle: true,
  minify: true,
  sourcemap: true,
  target: "es2022",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "warning",
});
await cp(new URL("public/", import.meta.url), dist, { recursive: true });
