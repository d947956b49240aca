// Clients write without pause while the server is killed again and again.
import { api, assert, connect, http, scenario, server, settings, watch } from "../clients/scenarios/harness.mjs";

const KILLS = Number(settings.kills);
const CLIENTS = 4;
const WRITERS = 8; // of each client: as many mutations of it are always on their way

scenario(`every acknowledged mutation is there and none twice, over ${KILLS} kills`, async () => {
  let round = 0;
  let running = true;
  let serial = 0;
  let acknowledged = 0;
  let wake = () => {};
  const sent = new Map(); // round -> keys sent in it
  const known = new Map(); // round -> keys of it that were acknowledged

  async function write(client) {
    while (running) {
      const log = String(round);
      const key = String(serial++).padStart(8, "0");
      sent.get(log).push(key);
      assert.equal(await client.mutation(api.entries.append, { log, key }), key);
      known.get(log).push(key);
      acknowledged++;
      wake();
    }
  }

  const acknowledgedAfter = (goal) =>
    new Promise((resolve) => {
      wake = () => acknowledged >= goal && resolve();
    });

  const begin = () => {
    sent.set(String(round), []);
    known.set(String(round), []);
  };

  begin();
  const clients = Array.from({ length: CLIENTS }, () => connect());
  const counts = watch(connect(), api.entries.count, { log: "0" });
  const writers = clients.flatMap((client) => Array.from({ length: WRITERS }, () => write(client)));
  const failed = Promise.all(writers);

  for (; round < KILLS; ) {
    await Promise.race([failed, acknowledgedAfter(acknowledged + 50 + Math.floor(Math.random() * 300))]);
    await server.kill();
    const promised = new Map([...known].map(([log, keys]) => [log, [...keys]]));
    await server.start();
    for (const [log, keys] of promised) {
      const stored = new Set(await http.query(api.entries.keys, { log }));
      assert.deepEqual(
        keys.filter((key) => !stored.has(key)),
        [],
        `acknowledged before kill ${round + 1}, and gone after it`,
      );
    }
    round++;
    begin();
  }
  await Promise.race([failed, acknowledgedAfter(acknowledged + 50)]);
  running = false;
  await failed;

  for (const [log, keys] of sent) assert.deepEqual(await http.query(api.entries.keys, { log }), keys.toSorted(), `round ${log}`);
  await counts.until((count) => count === sent.get("0").length);
  assert.deepEqual(counts.seen, counts.seen.toSorted((a, b) => a - b), "a live query never goes back");
  console.log(`${acknowledged} mutations acknowledged over ${KILLS} kills`);
});
