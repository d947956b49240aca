// ConvexHttpClient.
import { ConvexError } from "convex/values";
import { api, assert, connect, failure, http, scenario, url, watch } from "./harness.mjs";

scenario("queries, mutations and actions", async () => {
  assert.equal(await http.query(api.counters.get, { name: "http" }), 0);
  assert.equal(await http.mutation(api.counters.add, { name: "http", by: 2 }), 2);
  assert.equal(await http.action(api.counters.add_twice, { name: "http" }), 4);
});

scenario("what is written over HTTP is seen over the socket", async () => {
  const counter = watch(connect(), api.counters.get, { name: "http to socket" });
  await counter.until((count) => count === 0);
  await http.mutation(api.counters.add, { name: "http to socket" });
  await counter.until((count) => count === 1);
});

scenario("mutations of one client are applied in order", async () => {
  const counts = await Promise.all([1, 2, 3, 4].map(() => http.mutation(api.counters.add, { name: "http ordered" })));
  assert.deepEqual(counts, [1, 2, 3, 4]);
});

scenario("mutations that need not wait for each other are all applied", async () => {
  const counts = await Promise.all(
    Array.from({ length: 20 }, () => http.mutation(api.counters.add, { name: "http unordered" }, { skipQueue: true })),
  );
  assert.deepEqual(
    counts.sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
});

scenario("consistent queries are answered as of one moment", async () => {
  const { ConvexHttpClient } = await import("convex/browser");
  const reader = new ConvexHttpClient(url);
  const before = await reader.consistentQuery(api.counters.get, { name: "consistent" });
  await http.mutation(api.counters.add, { name: "consistent" });
  const after = await reader.consistentQuery(api.counters.get, { name: "consistent" });
  assert.deepEqual([before, after], [0, 0]);
  assert.equal(await reader.query(api.counters.get, { name: "consistent" }), 1);
});

scenario("an application error has its data", async () => {
  const data = { code: "Full", left: [0, 1n] };
  for (const kind of ["query", "mutation", "action"]) {
    const error = await failure(http[kind](api.failing[`${kind}_refuses`], { data }));
    assert.ok(error instanceof ConvexError, String(error));
    assert.deepEqual(error.data, data);
  }
});

scenario("any other failure is a plain error with a request id", async () => {
  const error = await failure(http.mutation(api.failing.crashes, {}));
  assert.ok(!(error instanceof ConvexError));
  assert.match(error.message, /\[Request ID: [0-9a-f]{16}\] Server Error/);
});

scenario("a wrong call says what is wrong", async () => {
  assert.match((await failure(http.query(api.nowhere.at_all, {}))).message, /Could not find public function for 'nowhere:at_all'/);
  assert.match((await failure(http.query(api.counters.get, { name: 5 }))).message, /name/);
});

async function post(path, body) {
  const response = await fetch(`${url}${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return await response.json();
}

scenario("the format is chosen by the caller", async () => {
  const args = { value: { $integer: "BQAAAAAAAAA=" } };
  assert.deepEqual(await post("/api/query", { path: "values:echo", args, format: "json" }), { status: "success", value: "5" });
  assert.deepEqual(await post("/api/query", { path: "values:echo", args, format: "convex_encoded_json" }), {
    status: "success",
    value: { $integer: "BQAAAAAAAAA=" },
  });
});
