// What every script of scenarios shares. A script is run by tests/support/node.py, which also kills and starts the
// server when asked to by a line on standard output.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";

export { assert };
export const api = anyApi;
export const url = process.argv[2];
export const settings = JSON.parse(process.argv[3]);

const DEADLINE_MS = 20_000;

const scenarios = [];
const open = [];

/** A scenario and the sentence that it shows. They run in the order written, each with clients of its own. */
export function scenario(sentence, run) {
  scenarios.push({ sentence, run });
}

/** A WebSocket client that is closed after its scenario. */
export function connect(options = {}) {
  const client = new ConvexClient(url, options);
  open.push(client);
  return client;
}

export const http = new ConvexHttpClient(url);

/** Every result that a live query has given so far, and waiting for one. */
export function watch(client, query, args) {
  const seen = [];
  const errors = [];
  let check = () => {};
  client.onUpdate(
    query,
    args,
    (value) => {
      seen.push(value);
      check();
    },
    (error) => {
      errors.push(error);
      check();
    },
  );
  const until = (condition, what) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`waited in vain for ${what}; seen: ${JSON.stringify(seen)} ${errors}`)), DEADLINE_MS);
      check = () => {
        if (!condition()) return;
        clearTimeout(timer);
        check = () => {};
        resolve();
      };
      check();
    });
  return {
    seen,
    errors,
    get last() {
      return seen.at(-1);
    },
    /** Waits until the newest result satisfies the condition. */
    until: (condition) => until(() => seen.length > 0 && condition(seen.at(-1)), condition),
    untilError: () => until(() => errors.length > 0, "an error"),
  };
}

/** Waits until the connection's state satisfies the condition. */
export function connection(client, condition) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`waited in vain for ${condition}`)), DEADLINE_MS);
    const stop = client.subscribeToConnectionState((state) => {
      if (!condition(state)) return;
      clearTimeout(timer);
      queueMicrotask(() => stop());
      resolve();
    });
    if (condition(client.connectionState())) {
      clearTimeout(timer);
      stop();
      resolve();
    }
  });
}

/** The error of a promise that must fail. */
export async function failure(promise) {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error) => ({ error }),
  );
  if (!("error" in outcome)) assert.fail(`it must fail, but gave ${JSON.stringify(outcome.value)}`);
  return outcome.error;
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function tell(message) {
  process.stdout.write(`@@${JSON.stringify(message)}\n`);
  if ("do" in message) await answers.next();
}

/** The server's process. `start` returns once it answers. */
export const server = {
  kill: () => tell({ do: "kill" }),
  stop: () => tell({ do: "stop" }),
  start: () => tell({ do: "start" }),
};

async function main() {
  const passed = [];
  let failed = null;
  for (const { sentence, run } of scenarios) {
    try {
      await run();
      passed.push(sentence);
    } catch (error) {
      failed = `${sentence}: ${error?.stack ?? error}`;
      break;
    } finally {
      await Promise.all(open.splice(0).map((client) => client.close()));
    }
  }
  await tell({ passed, failed });
  process.exit(failed ? 1 : 0);
}

setImmediate(main);
