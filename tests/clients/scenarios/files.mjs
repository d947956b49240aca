// Files: addresses from functions, contents by fetch, as a browser does it.
import { createHash } from "node:crypto";
import { ConvexError } from "convex/values";
import { api, assert, connect, http, scenario, watch } from "./harness.mjs";

const text = (content) => new Blob([content], { type: "text/plain" });

async function upload(body, headers = {}) {
  const answer = await fetch(await http.mutation(api.files.upload_url, {}), { method: "POST", body, headers });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).storageId;
}

scenario("a file is sent, described and got", async () => {
  const id = await upload(text("hello"));
  const file = await http.query(api.files.described, { id });
  assert.equal(file._id, id);
  assert.equal(file.size, 5);
  assert.equal(file.contentType, "text/plain");
  assert.equal(file.sha256, createHash("sha256").update("hello").digest("base64"));
  const answer = await fetch(await http.query(api.files.url, { id }));
  assert.equal(answer.headers.get("content-type"), "text/plain");
  assert.equal(await answer.text(), "hello");
});

scenario("a part of a file is got", async () => {
  const url = await http.query(api.files.url, { id: await upload(text("0123456789")) });
  const answer = await fetch(url, { headers: { Range: "bytes=2-4" } });
  assert.equal(answer.status, 206);
  assert.equal(await answer.text(), "234");
});

scenario("an announced digest that is not that of the content is refused", async () => {
  const digest = createHash("sha256").update("other").digest("base64");
  const url = await http.mutation(api.files.upload_url, {});
  const answer = await fetch(url, { method: "POST", body: "hello", headers: { Digest: `sha-256=${digest}` } });
  assert.equal(answer.status, 400);
  assert.equal((await answer.json()).code, "Sha256Mismatch");
});

scenario("a watched address goes when the file is deleted", async () => {
  const id = await upload(text("short-lived"));
  const url = await http.query(api.files.url, { id });
  const watched = watch(connect(), api.files.url, { id });
  await watched.until((value) => value === url);
  assert.equal((await fetch(url)).status, 200);
  await http.mutation(api.files.remove, { id });
  await watched.until((value) => value === null);
  assert.equal((await fetch(url)).status, 404);
});

scenario("an action reads a file and stores another", async () => {
  const id = await http.action(api.files.upper, { id: await upload(text("shout")) });
  assert.equal(await (await fetch(await http.query(api.files.url, { id }))).text(), "SHOUT");
});

scenario("an id of another table is no file's", async () => {
  await assert.rejects(http.query(api.files.url, { id: "j57000820c20a1g7104gm2rc1m70ynr8" }), (error) => !(error instanceof ConvexError));
});

scenario("many files at once", async () => {
  const contents = Array.from({ length: 20 }, (_, at) => `${at}`.repeat(10_000 + at));
  const ids = await Promise.all(contents.map((content) => upload(text(content))));
  const got = await Promise.all(ids.map(async (id) => (await fetch(await http.query(api.files.url, { id }))).text()));
  assert.deepEqual(got, contents);
});
