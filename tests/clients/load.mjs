// Official JavaScript clients that transfer money and append to lists, and others that watch live queries on every node.
// Each line on standard output is what one client was told; "stop" on standard input ends it. Driven by tests/cluster/load.py.
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import { ConvexClient } from "convex/browser";
import { anyApi as api } from "convex/server";
import { ConvexError } from "convex/values";

const { url, nodes, clients, first, run, accounts, balance, pause } = JSON.parse(process.argv[2]);
const KEYS = "abcdef";

const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
// The clock that Python calls time.monotonic.
const now = () => Number(process.hrtime.bigint()) / 1e9;
const below = (n) => Math.floor(Math.random() * n);

let stopping = false;

async function write(client, number) {
  for (let count = 1; !stopping; count++) {
    const keys = [...KEYS].sort(() => Math.random() - 0.5).slice(0, 1 + below(2));
    const began = now();
    const dice = Math.random();
    try {
      if (dice < 0.5) {
        const value = dice < 0.35 ? number * 1_000_000 + count : null;
        const saw =
          value === null ? await client.mutation(api.lists.read, { run, keys }) : await client.mutation(api.lists.append, { run, keys, value });
        tell({ value, keys, began, ended: now(), saw });
      } else if (dice < 0.6) {
        const total = await client.mutation(api.bank.total_now, {});
        tell(total === accounts * balance ? { ended: now() } : { failed: `there are ${total}: money came or went` });
      } else {
        const source = below(accounts);
        const target = (source + 1 + below(accounts - 1)) % accounts;
        await client.mutation(api.bank.transfer, { source, target, amount: 1 + below(30) });
        tell({ ended: now() });
      }
    } catch (error) {
      tell(error instanceof ConvexError ? { ended: now() } : { failed: String(error) });
    }
    if (pause) await wait(1000 * pause);
  }
}

const views = nodes.map((node) => {
  const view = { client: new ConvexClient(node, { logger: false }), lists: {}, updates: 0, totals: 0 };
  const wrong = (error) => tell({ failed: `a live query on ${node}: ${error}` });
  view.client.onUpdate(
    api.lists.everything,
    { run },
    (lists) => {
      for (const [key, values] of Object.entries(view.lists)) {
        if (values.some((value, at) => lists[key]?.[at] !== value)) wrong(`${key} went back`);
      }
      view.lists = lists;
      view.updates++;
    },
    wrong,
  );
  view.client.onUpdate(
    api.bank.total,
    {},
    (total) => {
      view.totals++;
      if (total !== accounts * balance) wrong(`it saw ${total}, half of a transfer`);
    },
    wrong,
  );
  return view;
});

const writers = Array.from({ length: clients }, (_, at) => new ConvexClient(url, { logger: false }));
const writing = Promise.all(writers.map((client, at) => write(client, first + at)));

for await (const line of createInterface({ input: process.stdin })) {
  if (line !== "stop") continue;
  stopping = true;
  await writing;
  tell({ stopped: true });
  const settled = () => views.map(({ lists, updates, totals }) => ({ lists, updates, totals }));
  tell({ views: settled() });
  // What arrives later is told too: until whoever asked has seen the final state in it, and kills this.
  let told = JSON.stringify(settled());
  setInterval(() => {
    const text = JSON.stringify(settled());
    if (text !== told) tell({ views: settled() });
    told = text;
  }, 50);
}
