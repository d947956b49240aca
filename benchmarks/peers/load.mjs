// Sends transfers as a Node program does: with its own fetch, or with the official client over WebSocket.
// Each client has one request outstanding. benchmarks/load.py starts this, and says on standard input what to send.
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { ConvexClient } from "convex/browser";
import { anyApi } from "convex/server";

const ANSWER_WITHIN_MS = 10_000;
const { load, pairs } = JSON.parse(await text(process.stdin));
const url = `http://127.0.0.1:${load.port}`;

const clients = {
  http: () => async (args) => {
    const body = JSON.stringify({ path: load.function, args, format: "json" });
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(`${url}/api/mutation`, { method: "POST", headers, body });
    const answer = await response.json();
    if (answer.status !== "success") throw new Error(answer.errorMessage);
  },
  websocket: () => {
    const client = new ConvexClient(url);
    const [module, name] = load.function.split(":");
    return (args) => client.mutation(anyApi[module][name], args);
  },
};

let latencies = [];
let failed = 0;
let running = true;

async function run(transfer, pairs) {
  for (let next = 0; running; next = (next + 1) % pairs.length) {
    const [source, target] = pairs[next];
    const began = performance.now();
    try {
      await transfer({ source, target, amount: 1 });
    } catch (error) {
      failed += 1;
      if (failed === 1) console.error(error);
    }
    latencies.push(performance.now() - began);
  }
}

for (const each of pairs) run(clients[load.transport](), each);
await sleep(load.warmup_s * 1000);
console.log(JSON.stringify("measuring"));
latencies = [];
failed = 0;
const cpu = process.cpuUsage();
const began = performance.now();
await sleep(load.seconds * 1000);
// On a machine that does much else a short measurement may see nothing.
while (latencies.length === 0 && performance.now() - began < ANSWER_WITHIN_MS) await sleep(load.seconds * 1000);
const took = performance.now() - began;
const { user, system } = process.cpuUsage(cpu);
running = false;
const sorted = Float64Array.from(latencies).sort();
console.log(JSON.stringify("measured"));
if (sorted.length === 0) throw new Error("no request was answered");
const quantile = (share) => sorted[Math.floor(sorted.length * share)];
const result = {
  per_second: (sorted.length / took) * 1000,
  client_cpu_us: (user + system) / sorted.length,
  p50_ms: quantile(0.5),
  p95_ms: quantile(0.95),
  p99_ms: quantile(0.99),
  failed,
};
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
