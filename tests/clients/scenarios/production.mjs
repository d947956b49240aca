// A production server says no more than it must.
import { ConvexError } from "convex/values";
import { api, assert, connect, failure, http, scenario } from "./harness.mjs";

scenario("what went wrong inside is not told, only where to look for it", async () => {
  for (const client of [connect(), http]) {
    const { message } = await failure(client.mutation(api.failing.crashes, {}));
    assert.match(message, /\[Request ID: [0-9a-f]{16}\] Server Error/);
    assert.doesNotMatch(message, /4711|RuntimeError|Traceback|\.py/);
  }
});

scenario("application errors keep their data", async () => {
  const error = await failure(connect().mutation(api.failing.mutation_refuses, { data: { seats: 0 } }));
  assert.ok(error instanceof ConvexError);
  assert.deepEqual(error.data, { seats: 0 });
});

scenario("what a function prints is not sent", async () => {
  const lines = [];
  const logger = { logVerbose: () => {}, log: (...line) => lines.push(line), warn: (...line) => lines.push(line), error: (...line) => lines.push(line) };
  await connect({ logger }).mutation(api.counters.add, { name: "silent" });
  assert.deepEqual(lines, []);
});
