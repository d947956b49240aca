// The server dies under subscriptions, mutations and actions, and comes back.
import { api, assert, connect, connection, failure, http, scenario, server, watch } from "./harness.mjs";

const expected = (count) => Array.from({ length: count }, (_, index) => String(index).padStart(4, "0"));

scenario("mutations in flight when the server is killed are applied exactly once", async () => {
  const client = connect();
  const counter = watch(client, api.counters.get, { name: "killed" });
  await counter.until((count) => count === 0);
  const keys = expected(300);
  const sent = keys.map((key) => client.mutation(api.entries.append, { log: "killed", key }));
  await sent[20]; // some are acknowledged, some on their way, some not sent yet
  await server.kill();
  await server.start();
  assert.deepEqual(await Promise.all(sent), keys);
  assert.deepEqual(await http.query(api.entries.keys, { log: "killed" }), keys);
  await client.mutation(api.counters.add, { name: "killed" });
  assert.equal(counter.last, 1);
});

scenario("mutations sent while there is no server are applied when it is back", async () => {
  const client = connect();
  await client.query(api.counters.get, { name: "offline" });
  await server.stop();
  await connection(client, (state) => !state.isWebSocketConnected);
  const sent = [1, 2, 3].map((by) => client.mutation(api.counters.add, { name: "offline", by }));
  await server.start();
  assert.deepEqual(await Promise.all(sent), [1, 3, 6]);
});

scenario("subscriptions go on, with what other clients changed meanwhile", async () => {
  const client = connect();
  const counter = watch(client, api.counters.get, { name: "meanwhile" });
  await counter.until((count) => count === 0);
  await server.kill();
  await connection(client, (state) => !state.isWebSocketConnected);
  await server.start();
  await http.mutation(api.counters.add, { name: "meanwhile", by: 7 });
  await counter.until((count) => count === 7);
  assert.deepEqual(counter.errors, []);
});

scenario("an action in flight fails, since nobody can tell how far it came", async () => {
  const client = connect();
  const started = watch(client, api.counters.get, { name: "hanging" });
  const hanging = failure(client.action(api.counters.hang, { name: "hanging" }));
  await started.until((count) => count === 1);
  await server.kill();
  await server.start();
  assert.match((await hanging).message, /Connection lost while action was in flight/);
  assert.equal(await client.query(api.counters.get, { name: "hanging" }), 1);
});

scenario("a server that is asked to stop finishes what it has begun, and its clients come back", async () => {
  const client = connect();
  const keys = expected(100);
  const sent = keys.map((key) => client.mutation(api.entries.append, { log: "stopped", key }));
  await sent[5];
  await server.stop();
  await server.start();
  assert.deepEqual(await Promise.all(sent), keys);
  assert.deepEqual(await http.query(api.entries.keys, { log: "stopped" }), keys);
});
