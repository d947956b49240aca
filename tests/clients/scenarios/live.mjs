// ConvexClient: queries that stay live, mutations, actions.
import { ConvexError } from "convex/values";
import { api, assert, connect, connection, failure, scenario, watch } from "./harness.mjs";

scenario("a subscription sees each change, also those of another client", async () => {
  const [watching, writing] = [connect(), connect()];
  const counter = watch(watching, api.counters.get, { name: "live" });
  await counter.until((count) => count === 0);
  await writing.mutation(api.counters.add, { name: "live" });
  await counter.until((count) => count === 1);
  await watching.mutation(api.counters.add, { name: "live", by: 4 });
  assert.equal(counter.last, 5, "a mutation resolves only when its client's queries show it");
});

scenario("two subscriptions of one client change together", async () => {
  const client = connect();
  const counter = watch(client, api.counters.get, { name: "pair" });
  const below = watch(client, api.failing.refuses_above, { name: "pair", limit: 100 });
  await counter.until((count) => count === 0);
  await below.until((count) => count === 0);
  const steps = [];
  client.onUpdate(api.counters.get, { name: "pair" }, () => steps.push([counter.last, below.last]));
  for (let step = 1; step <= 5; step++) {
    await client.mutation(api.counters.add, { name: "pair" });
    assert.equal(counter.last, step);
    assert.equal(below.last, step);
  }
});

scenario("a query without changes is not sent again, one that ended is not either", async () => {
  const client = connect();
  const other = watch(client, api.counters.get, { name: "untouched" });
  const ended = watch(client, api.counters.get, { name: "ended" });
  await other.until((count) => count === 0);
  await ended.until((count) => count === 0);
  await client.mutation(api.counters.add, { name: "elsewhere" });
  assert.equal(other.seen.length, 1);
  const seen = [];
  const stop = client.onUpdate(api.counters.get, { name: "stopped" }, (count) => seen.push(count));
  await client.query(api.counters.get, { name: "stopped" });
  stop();
  const before = seen.length;
  await client.mutation(api.counters.add, { name: "stopped" });
  assert.equal(seen.length, before);
});

scenario("one-off queries over the socket", async () => {
  const client = connect();
  await client.mutation(api.counters.add, { name: "one-off", by: 3 });
  assert.equal(await client.query(api.counters.get, { name: "one-off" }), 3);
});

scenario("mutations of one client run in the order sent", async () => {
  const client = connect();
  const counts = await Promise.all(Array.from({ length: 50 }, () => client.mutation(api.counters.add, { name: "ordered" })));
  assert.deepEqual(counts, Array.from({ length: 50 }, (_, index) => index + 1));
});

scenario("an optimistic update shows at once, and gives way to the result", async () => {
  const client = connect();
  const counter = watch(client, api.counters.get, { name: "optimistic" });
  await counter.until((count) => count === 0);
  const done = client.mutation(
    api.counters.add,
    { name: "optimistic", by: 2 },
    { optimisticUpdate: (store) => store.setQuery(api.counters.get, { name: "optimistic" }, 1000) },
  );
  await counter.until((count) => count === 1000);
  await done;
  assert.deepEqual(counter.seen, [0, 1000, 2]);
});

scenario("an optimistic update is taken back when the mutation fails", async () => {
  const client = connect();
  const counter = watch(client, api.counters.get, { name: "rolled back" });
  await counter.until((count) => count === 0);
  const error = await failure(
    client.mutation(
      api.failing.mutation_refuses,
      { data: "no" },
      { optimisticUpdate: (store) => store.setQuery(api.counters.get, { name: "rolled back" }, 1000) },
    ),
  );
  assert.equal(error.data, "no");
  await counter.until((count) => count === 0);
  assert.deepEqual(counter.seen, [0, 1000, 0]);
  assert.equal(await client.query(api.counters.get, { name: "must not remain" }), 0);
});

scenario("an action reads and writes, and its mutations are seen", async () => {
  const client = connect();
  const counter = watch(client, api.counters.get, { name: "action" });
  assert.equal(await client.action(api.counters.add_twice, { name: "action" }), 2);
  await counter.until((count) => count === 2);
});

scenario("an application error arrives with its data, whatever the kind of function", async () => {
  const client = connect();
  const data = { code: "Full", seats: 3, nested: [1n, null, { ok: false }] };
  for (const kind of ["query", "mutation", "action"]) {
    const error = await failure(client[kind](api.failing[`${kind}_refuses`], { data }));
    assert.ok(error instanceof ConvexError, String(error));
    assert.deepEqual(error.data, data);
  }
});

scenario("a live query's error is its result, and goes when its data changes", async () => {
  const client = connect();
  const guarded = watch(client, api.failing.refuses_above, { name: "guarded", limit: 1 });
  await guarded.until((count) => count === 0);
  await client.mutation(api.counters.add, { name: "guarded", by: 2 });
  await guarded.untilError();
  assert.deepEqual(guarded.errors[0].data, { count: 2 });
  await client.mutation(api.counters.add, { name: "guarded", by: -1 });
  await guarded.until((count) => count === 1);
});

scenario("a wrong call says what is wrong, and harms nothing else on the socket", async () => {
  const client = connect();
  const wrong = [
    [() => client.query(api.nowhere.at_all, {}), /Could not find public function for 'nowhere:at_all'/],
    [() => client.mutation(api.counters.reset, { name: "x" }), /Could not find public function for 'counters:reset'/],
    [() => client.mutation(api.counters.get, { name: "x" }), /counters:get/],
    [() => client.query(api.counters.get, {}), /name/],
    [() => client.query(api.counters.get, { name: 5 }), /name/],
    [() => client.query(api.counters.get, { name: "x", extra: 1 }), /extra/],
    [() => client.mutation(api.items.remove, { item: "not an id" }), /item/],
  ];
  for (const [call, text] of wrong) assert.match((await failure(call())).message, text);
  assert.equal(await client.query(api.counters.get, { name: "unharmed" }), 0);
  await connection(client, (state) => state.isWebSocketConnected && state.connectionCount === 1);
});
