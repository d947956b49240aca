// What functions print and log: in the client's console in development, and nowhere but in the server's log in production.
import { ConvexHttpClient } from "convex/browser";
import { api, assert, connect, failure, scenario, settings, url, watch } from "./harness.mjs";

/** A logger as clients take it, and the texts of what it was given without the styles of consoles. */
function recording() {
  const lines = [];
  const keep = (...line) => lines.push(line.filter((part) => !/^color:/.test(part)).join(" "));
  return { lines, logger: { logVerbose: () => {}, log: keep, warn: keep, error: keep } };
}

/** What functions said, without what the client has to say of itself. */
function said(lines, what = "talking") {
  return lines.filter((line) => line.includes(what) && /\] \[(LOG|DEBUG|INFO|WARN|ERROR)\] /.test(line));
}

async function talk(client, name) {
  await client.mutation(api.talking.writes, { name });
  await client.action(api.talking.acts, { name });
  await failure(client.mutation(api.talking.refuses, { name }));
}

function expected(...lines) {
  return settings.production ? [] : lines;
}

scenario("lines of a mutation, an action and a failed mutation over the socket", async () => {
  const { lines, logger } = recording();
  await talk(connect({ logger }), "socket");
  assert.deepEqual(
    said(lines),
    expected(
      "%c[CONVEX M(talking:writes)] [INFO] 'writing socket'",
      "%c[CONVEX A(talking:acts)] [WARN] 'acting on socket'",
      "%c[CONVEX M(talking:refuses)] [LOG] 'refusing socket'",
    ),
  );
});

scenario("lines of a live query, with its first result and each later one", async () => {
  const { lines, logger } = recording();
  const client = connect({ logger });
  const counted = watch(client, api.talking.asks, { name: "live" });
  await counted.until((count) => count === 0);
  await client.mutation(api.talking.writes, { name: "live" });
  await counted.until((count) => count === 1);
  assert.deepEqual(
    said(lines, "asks"),
    expected("%c[CONVEX Q(talking:asks)] [LOG] 'looking for live'", "%c[CONVEX Q(talking:asks)] [LOG] 'looking for live'"),
  );
});

scenario("lines of calls over HTTP", async () => {
  const { lines, logger } = recording();
  const client = new ConvexHttpClient(url, { logger });
  await client.query(api.talking.asks, { name: "http" });
  await client.query(api.talking.asks, { name: "http" });
  await talk(client, "http");
  assert.deepEqual(
    said(lines),
    expected(
      "%c[CONVEX Q(talking:asks)] [LOG] 'looking for http'",
      "%c[CONVEX Q(talking:asks)] [LOG] 'looking for http'",
      "%c[CONVEX M(talking:writes)] [INFO] 'writing http'",
      "%c[CONVEX A(talking:acts)] [WARN] 'acting on http'",
      "%c[CONVEX M(talking:refuses)] [LOG] 'refusing http'",
    ),
  );
});
